//! Sets of AS paths, as regular expressions over their text.
//!
//! The text is that of [`AsPath`]: numbers nearest first, `64512 64513 {64514}`. `_` stands for whatever ends a number,
//! as on every router: `_64513_` is a path through AS 64513, `^64512_` one from it, `_64514$` one that begins there.
//! The matcher's time grows with the length of the path only, whatever the pattern.

use regex::{RegexSet, RegexSetBuilder};

use crate::wire::AsPath;

/// Characters of a pattern at most.
pub const MAX_PATTERN: usize = 256;
/// What the compiled patterns of a set may take at most.
const MAX_COMPILED: usize = 1 << 20;
/// What `_` stands for.
const END_OF_NUMBER: &str = r"(?:^|$|[ {}()\[\]])";

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Beyond the bound.
    #[error(
        "has {length} characters, but {MAX_PATTERN} are the most: split it into several patterns"
    )]
    TooLong {
        /// Its characters.
        length: usize,
    },
    /// `[_ ]` would mean something else than it says.
    #[error("is `{pattern}`, but `_` cannot stand inside brackets: write (_|...) instead")]
    Bracket {
        /// The pattern.
        pattern: String,
    },
    /// The matcher does not take it.
    #[error(
        "is `{pattern}`, which is no regular expression ({why}): write one such as _64512_ or ^64512_(64513_)*$"
    )]
    Syntax {
        /// The pattern.
        pattern: String,
        /// Why not, on one line.
        why: String,
    },
    /// The compiled set is beyond the bound.
    #[error(
        "has patterns that take more than 1 MiB together: use fewer repetitions such as {{1,100}}"
    )]
    TooLarge,
}

/// A set of them.
#[derive(Clone, Debug)]
pub struct AsPathSet {
    patterns: Vec<String>,
    compiled: RegexSet,
}

impl AsPathSet {
    /// The set of all paths that match one of the patterns.
    ///
    /// # Errors
    ///
    /// The first pattern that is refused, and why.
    pub fn new(patterns: Vec<String>) -> Result<Self, PatternError> {
        let translated = patterns.iter().map(|pattern| translated(pattern));
        let translated = translated.collect::<Result<Vec<_>, _>>()?;
        let compiled = RegexSetBuilder::new(&translated).size_limit(MAX_COMPILED).build();
        let compiled = compiled.map_err(|error| match error {
            regex::Error::Syntax(why) => PatternError::Syntax {
                // Its last line says what is wrong, those before draw where.
                why: why
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned(),
                pattern: patterns.join("`, `"),
            },
            regex::Error::CompiledTooBig(_) | _ => PatternError::TooLarge,
        })?;
        Ok(Self { patterns, compiled })
    }

    /// What it was made of.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether a path is in it.
    #[must_use]
    pub fn contains(&self, path: &AsPath) -> bool {
        self.compiled.is_match(&path.to_string())
    }
}

impl PartialEq for AsPathSet {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for AsPathSet {}

/// The pattern in the matcher's own words.
fn translated(pattern: &str) -> Result<String, PatternError> {
    let length = pattern.chars().count();
    if length > MAX_PATTERN {
        return Err(PatternError::TooLong { length });
    }
    let (mut translated, mut in_brackets) = (String::new(), false);
    for character in pattern.chars() {
        match character {
            '_' if in_brackets => {
                return Err(PatternError::Bracket { pattern: pattern.to_owned() });
            }
            '_' => translated.push_str(END_OF_NUMBER),
            other => {
                in_brackets = other == '[' || in_brackets && other != ']';
                translated.push(other);
            }
        }
    }
    Ok(translated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Segment;

    fn set(pattern: &str) -> AsPathSet {
        AsPathSet::new(vec![pattern.to_owned()]).unwrap()
    }

    #[test]
    fn patterns_match_as_on_every_router() {
        let path = |asns: &[u32]| AsPath::sequence(asns);
        let cases: [(&str, &[u32], bool); 14] = [
            ("_65001_", &[7, 65001, 8], true),
            ("_65001_", &[65001], true),
            ("_65001_", &[165001, 650011], false),
            ("^65001_", &[65001, 7], true),
            ("^65001_", &[7, 65001], false),
            ("_65001$", &[7, 65001], true),
            ("_65001$", &[65001, 7], false),
            ("^$", &[], true),
            ("^$", &[7], false),
            ("^[0-9]+$", &[7], true),
            ("^[0-9]+$", &[7, 8], false),
            ("^65001(_65001)*$", &[65001, 65001, 65001], true),
            ("^65001_.*_7$", &[65001, 8, 7], true),
            (".*", &[], true),
        ];
        for (pattern, asns, wanted) in cases {
            assert_eq!(set(pattern).contains(&path(asns)), wanted, "{pattern} {asns:?}");
        }
        let segments = vec![Segment::Sequence(vec![7]), Segment::Set(vec![8, 65001])];
        assert!(set("_65001_").contains(&AsPath { segments }));
    }

    #[test]
    fn one_pattern_of_several_is_enough() {
        let set = AsPathSet::new(vec!["_1_".into(), "_2_".into()]).unwrap();
        assert!(set.contains(&AsPath::sequence(&[3, 2])));
        assert!(!set.contains(&AsPath::sequence(&[3])));
        assert!(!AsPathSet::new(Vec::new()).unwrap().contains(&AsPath::default()));
    }

    #[test]
    fn a_pattern_that_cannot_work_is_refused_in_one_line() {
        let said = |pattern: &str| {
            let refused = AsPathSet::new(vec![pattern.to_owned()]).unwrap_err().to_string();
            assert_eq!(refused.lines().count(), 1, "{refused}");
            refused
        };
        assert!(said("(65001").contains("unclosed group"), "{}", said("(65001"));
        assert!(said("[_ ]").contains("inside brackets"));
        assert!(said(&"1".repeat(MAX_PATTERN + 1)).contains("257 characters"));
        assert!(said("((1{1,500}){1,500}){1,500}").contains("1 MiB"));
    }

    #[test]
    fn what_would_take_another_matcher_for_ever_is_quick() {
        let long = AsPath::sequence(&[11_111_111; 1000]);
        assert!(!set("^((1+ ?)+)+x$").contains(&long));
    }
}
