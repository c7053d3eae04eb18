//! YAML as the JSON values that the readers walk.

use serde::Deserialize;
use serde_json::Value;

/// Documents of one text at most: more than there can be resources.
pub const MAX_DOCUMENTS: usize = 100_000;

/// A text that is no YAML of plain fields and values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Broken {
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong, in one sentence.
    pub message: String,
}

/// Reads a text with one document; one that says nothing is null.
///
/// # Errors
///
/// The first place where it is no YAML.
pub fn document(text: &str) -> Result<Value, Broken> {
    let mut all = documents(text)?;
    match all.len() {
        0 => Ok(Value::Null),
        1 => Ok(all.remove(0)),
        many => {
            let message =
                format!("has {many} documents, but has to be one: remove the lines `---`");
            Err(Broken { line: None, message })
        }
    }
}

/// Reads a text of documents that `---` separates; those that say nothing are left out.
///
/// # Errors
///
/// The first place where it is no YAML, or that it has more than [`MAX_DOCUMENTS`].
pub fn documents(text: &str) -> Result<Vec<Value>, Broken> {
    let mut all = Vec::new();
    for (place, parser) in serde_norway::Deserializer::from_str(text).enumerate() {
        if place == MAX_DOCUMENTS {
            let message = format!("has more than {MAX_DOCUMENTS} documents: write several files");
            return Err(Broken { line: None, message });
        }
        // The parser's own value first: it refuses a field that is there twice.
        let value = serde_norway::Value::deserialize(parser).map_err(|error| Broken {
            line: error.location().map(|location| location.line()),
            message: format!("is not well-formed YAML: {error}"),
        })?;
        let value = serde_json::to_value(value).map_err(|error| Broken {
            line: None,
            message: format!("has a field that is no plain name or value: {error}"),
        })?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_separated_and_empty_ones_left_out() {
        let all = documents("---\na: 1\n---\n# nothing\n---\nb: [x]\n").unwrap();
        assert_eq!(all, [json!({"a": 1}), json!({"b": ["x"]})]);
        assert_eq!(documents("{\"a\": 1}").unwrap(), [json!({"a": 1})]);
        assert_eq!(documents("").unwrap(), Vec::<Value>::new());
        assert!(document("a: 1\n---\na: 2\n").is_err());
    }

    #[test]
    fn no_document_of_too_many_is_left_out_in_silence() {
        let text = "---\na: 1\n".repeat(MAX_DOCUMENTS);
        assert_eq!(documents(&text).unwrap().len(), MAX_DOCUMENTS);
        let broken = documents(&(text + "---\na: 1\n")).unwrap_err();
        assert!(broken.to_string().contains("more than 100000 documents"), "{broken}");
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        assert!(document("a: 1\na: 2\n").unwrap_err().line.is_some());
    }
}
