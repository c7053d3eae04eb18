//! Command lines as containerlab reads them: words with quotes and backslashes, no shell.

use anyhow::{Result, bail};

/// Splits a command line into words.
pub(crate) fn split(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(end) if end == character => break,
                        Some('\\') if character == '"' => word.extend(characters.next()),
                        Some(inner) => word.push(inner),
                        None => bail!("the quote {character} is not closed in `{line}`"),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_outside_quotes() {
        assert_eq!(
            split(r#"vtysh -c 'show ip  bgp' "a\"b" c\ d '' e"#).unwrap(),
            ["vtysh", "-c", "show ip  bgp", "a\"b", "c d", "", "e"]
        );
    }

    #[test]
    fn an_open_quote_is_refused() {
        assert!(split("echo 'a").unwrap_err().to_string().contains("not closed"));
    }
}
