//! In which line of a YAML text a field stands.
//!
//! The parser knows the line of whatever a visitor refuses. So the text is read once more along the path, and the
//! visitor refuses what the path names.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::read::{Path, Segment};

/// The line, counted from 1; of the nearest field around it where the field itself is not there.
pub(super) fn of(text: &str, path: &Path) -> Option<usize> {
    let segments = path.segments();
    (1..=segments.len()).rev().find_map(|length| find(text, &segments[..length]))
}

fn find(text: &str, path: &[Segment]) -> Option<usize> {
    let parser = serde_norway::Deserializer::from_str(text);
    let error = Along(path).deserialize(parser).err()?;
    error.to_string().contains(FOUND).then(|| error.location().map(|at| at.line()))?
}

/// What the visitor says when it is there; no error of the parser's own has these words.
const FOUND: &str = "this is the place";

/// Reads a value along a path; at its end it is an error that carries the place.
struct Along<'a>(&'a [Segment]);

impl<'de> DeserializeSeed<'de> for Along<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.0.first() {
            None => value.deserialize_any(Stop),
            Some(Segment::Field(_)) => value.deserialize_map(self),
            Some(Segment::Index(_)) => value.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Along<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the path names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Segment::Field(wanted), rest)) = self.0.split_first() else { return Ok(()) };
        let key = Key { wanted, last: rest.is_empty() };
        while let Some(here) = map.next_key_seed(&key)? {
            if here {
                return map.next_value_seed(Along(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Segment::Index(wanted), rest)) = self.0.split_first() else { return Ok(()) };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Along(rest)).map(drop)
    }
}

/// A field's name: says whether it is the wanted one, and stops there if the path ends with it.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for &Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for &Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        match (name == self.wanted, self.last) {
            (true, true) => Err(E::custom(FOUND)),
            (here, _) => Ok(here),
        }
    }
}

/// Refuses any value: this is the place.
struct Stop;

impl<'de> Visitor<'de> for Stop {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(FOUND))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(FOUND))
    }
}
