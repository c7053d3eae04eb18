//! Reads resources field by field, so that every mistake of a document is reported at once and each names its field.
//!
//! Serde stops at the first mistake. A [`Cursor`] walks a parsed value instead: a getter that finds something wrong
//! notes it and returns `None`, the caller goes on with a default, and [`document`] gives the value or all mistakes.

mod path;
mod words;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnetwork::IpNetwork;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};

pub use self::path::{Path, Segment};
use self::words::{kind, nearest};

/// Mistakes that are reported at most; the rest would not be read anyway.
const MAX_MISTAKES: usize = 100;

/// Something wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub path: Path,
    /// What is wrong and what to do, in one sentence that follows the field's name.
    pub message: String,
}

/// The mistakes of a document, as they are found.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// Notes one.
    pub fn note(&self, path: &Path, message: impl Into<String>) {
        let mut found = self.0.borrow_mut();
        if found.len() < MAX_MISTAKES {
            found.push(Mistake { path: path.clone(), message: message.into() });
        }
    }
}

/// Reads a whole document: the value, or everything that is wrong with it.
pub fn document<T>(
    value: &Value,
    read: impl FnOnce(&Cursor<'_>) -> Option<T>,
) -> Result<T, Vec<Mistake>> {
    let mistakes = Mistakes::default();
    let result = read(&Cursor { value, path: Path::default(), mistakes: &mistakes });
    let mut found = mistakes.0.into_inner();
    match result {
        Some(value) if found.is_empty() => Ok(value),
        Some(_) | None => {
            if found.is_empty() {
                // A reader that returns nothing without saying why.
                found.push(Mistake { path: Path::default(), message: "cannot be read".into() });
            }
            Err(found)
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    value: &'a Value,
    path: Path,
    mistakes: &'a Mistakes,
}

impl<'a> Cursor<'a> {
    /// Where this value stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes what is wrong with this value.
    pub fn wrong<T>(&self, message: impl Into<String>) -> Option<T> {
        self.mistakes.note(&self.path, message);
        None
    }

    fn wants<T>(&self, wanted: &str) -> Option<T> {
        self.wrong(format!("is {}, but has to be {wanted}", kind(self.value)))
    }

    /// A mapping with no other fields than these.
    pub fn object(&self, fields: &[&'static str]) -> Option<Object<'a>> {
        let Value::Object(map) = self.value else { return self.wants("a mapping of fields") };
        for name in map.keys().filter(|name| !fields.contains(&name.as_str())) {
            let remedy = match nearest(name, fields) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the fields here are {}", fields.join(", ")),
            };
            let path = self.path.field(name);
            self.mistakes.note(&path, format!("is an unknown field `{name}`: {remedy}"));
        }
        Some(Object { map, at: self.clone() })
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        self.value.is_string()
    }

    /// Whether it is a mapping of fields.
    pub fn is_mapping(&self) -> bool {
        self.value.is_object()
    }

    /// Whether it is a mapping with this field.
    pub fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    /// What to write instead of a name that is not known: the nearest one, or all.
    pub fn choice(&self, name: &str, known: &[&str]) -> String {
        match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        }
    }

    /// The members of a list; those that cannot be read are left out (and noted).
    pub fn list<T>(&self, mut read: impl FnMut(&Cursor<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(members) = self.value else { return self.wants("a list") };
        let at = |(index, value)| Cursor {
            value,
            path: self.path.index(index),
            mistakes: self.mistakes,
        };
        Some(members.iter().enumerate().map(at).filter_map(|cursor| read(&cursor)).collect())
    }

    /// The fields of a mapping whose names are the writer's own.
    pub fn entries(&self) -> Option<Vec<(&'a str, Cursor<'a>)>> {
        let Value::Object(map) = self.value else {
            return self.wants("a mapping of names to text");
        };
        let at = |(name, value): (&'a String, &'a Value)| {
            let path = self.path.field(name);
            (name.as_str(), Cursor { value, path, mistakes: self.mistakes })
        };
        Some(map.iter().map(at).collect())
    }

    /// Any text.
    pub fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => self.wants("text"),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(*value),
            Value::Null
            | Value::String(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => self.wants("true or false"),
        }
    }

    /// A whole number within a range.
    pub fn number<N>(&self, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + std::fmt::Display,
    {
        let (least, most) = (range.start(), range.end());
        let Value::Number(number) = self.value else {
            return self.wants(&format!("a number from {least} to {most}"));
        };
        let value = number.as_u64().and_then(|number| N::try_from(number).ok());
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => self.wrong(format!("is {number}, but has to be from {least} to {most}")),
        }
    }

    /// One of some words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let Value::String(text) = self.value else {
            return self.wants(&format!("one of {}", all()));
        };
        match words.iter().find(|(word, _)| word == text) {
            Some((_, value)) => Some(*value),
            None => self.wrong(format!("is `{text}`, but has to be one of {}", all())),
        }
    }

    /// A prefix of either family, without host bits.
    pub fn prefix(&self) -> Option<IpNetwork> {
        let text = self.text()?;
        // A bare address would be read as a prefix of its own.
        let prefix = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
        match prefix {
            Some(prefix) if prefix.ip() == prefix.network() => Some(prefix),
            Some(prefix) => {
                let network = prefix.network();
                let len = prefix.prefix();
                self.wrong(format!(
                    "is {prefix}, which has host bits: did you mean {network}/{len}?"
                ))
            }
            None => {
                self.wrong(format!("is `{text}`, but has to be a prefix, such as 192.0.2.0/24"))
            }
        }
    }

    /// An IP address.
    pub fn address(&self) -> Option<IpAddr> {
        self.parsed("an address such as 203.0.113.10")
    }

    /// An IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.parsed("an IPv4 address such as 192.0.2.1")
    }

    /// An address and a port.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.parsed("an address and a port such as 127.0.0.1:8080")
    }

    /// A path from the root.
    pub fn file(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.text()?);
        if !path.is_absolute() {
            return self.wrong(format!("is `{}`, but has to begin with /", path.display()));
        }
        Some(path)
    }

    fn parsed<T: std::str::FromStr>(&self, wanted: &str) -> Option<T> {
        let text = match self.value {
            Value::String(text) => text,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => return self.wants(wanted),
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.wrong(format!("is `{text}`, but has to be {wanted}")),
        }
    }
}

/// A mapping.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    at: Cursor<'a>,
}

impl<'a> Object<'a> {
    /// The mapping as a value.
    pub fn cursor(&self) -> &Cursor<'a> {
        &self.at
    }

    /// A field; `None` where it is left out or null.
    pub fn field(&self, name: &str) -> Option<Cursor<'a>> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Cursor { value, path: self.at.path.field(name), mistakes: self.at.mistakes })
    }

    /// A field; `None` only where it is left out: where nothing would mean everything, null is no way to leave out.
    pub fn given(&self, name: &str) -> Option<Cursor<'a>> {
        let value = self.map.get(name)?;
        Some(Cursor { value, path: self.at.path.field(name), mistakes: self.at.mistakes })
    }

    /// A field that has to be there.
    pub fn required(&self, name: &str) -> Option<Cursor<'a>> {
        let field = self.field(name);
        if field.is_none() {
            self.at.mistakes.note(&self.at.path.field(name), "is missing");
        }
        field
    }

    /// Notes that a field is missing, and what to write.
    pub fn missing<T>(&self, name: &str, remedy: &str) -> Option<T> {
        let message = format!("is missing: {remedy}");
        self.at.mistakes.note(&self.at.path.field(name), message);
        None
    }
}

#[cfg(test)]
mod tests;
