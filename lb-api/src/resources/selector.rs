//! Which resources are meant, by their labels: `app=web,tier!=test,canary,!old`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::metadata::is_label;

/// Terms of a selector at most.
const MAX_TERMS: usize = 32;
const WANTED: &str = "a selector is made of name=value, name!=value, name (is there) and !name (is not), 32 of them at most, with commas between";

/// A condition on labels; the default one takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    There(String),
    NotThere(String),
}

impl Selector {
    /// Whether labels are as every term says. A label that is not there is not equal to anything.
    pub fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::Is(name, value) => labels.get(name) == Some(value),
            Term::IsNot(name, value) => labels.get(name) != Some(value),
            Term::There(name) => labels.contains_key(name),
            Term::NotThere(name) => !labels.contains_key(name),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, term) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            match term {
                Term::Is(name, value) => write!(f, "{name}={value}")?,
                Term::IsNot(name, value) => write!(f, "{name}!={value}")?,
                Term::There(name) => f.write_str(name)?,
                Term::NotThere(name) => write!(f, "!{name}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let term = |text: &str| {
            let text = text.trim();
            let pair = |sign: &str| {
                let (name, value) = text.split_once(sign)?;
                Some((name.trim().to_owned(), value.trim().to_owned()))
            };
            let is_value = |value: &str| value.is_empty() || is_label(value);
            let term = match (pair("!="), pair("==").or_else(|| pair("="))) {
                (Some((name, value)), _) if is_value(&value) => Term::IsNot(name, value),
                (None, Some((name, value))) if is_value(&value) => Term::Is(name, value),
                (Some(_), _) | (None, Some(_)) => return None,
                (None, None) => match text.strip_prefix('!') {
                    Some(name) => Term::NotThere(name.trim().to_owned()),
                    None => Term::There(text.to_owned()),
                },
            };
            let (Term::Is(name, _)
            | Term::IsNot(name, _)
            | Term::There(name)
            | Term::NotThere(name)) = &term;
            is_label(name).then_some(term)
        };
        let terms: Option<Vec<_>> = text.split(',').map(term).collect();
        terms.filter(|terms| terms.len() <= MAX_TERMS).map(Self).ok_or(WANTED)
    }
}
