//! Interfaces by their names.

/// Whether an interface's name is one of these, or fits one in which `*` stands for any characters.
#[must_use]
pub fn is_named(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.len() >= end.len() && name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let fits = [
            ("eth0", "eth0"),
            ("eth*", "eth12"),
            ("*", "x"),
            ("e*0", "eth0"),
            ("*th*", "eth0"),
            ("a*b*c", "aXbbc"),
        ];
        for (pattern, name) in fits {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("eth0", "eth01"), ("eth*", "et"), ("e*0", "eth1"), ("a*b*c", "abx"), ("ab*b", "ab")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
