//! The configuration file: read whole, with every mistake at once.

mod line;
mod sections;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use lb_api_types::config::Config;
use serde_json::{Map, Value};

use crate::read::{Mistake, document};
use crate::yaml;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read at all.
    #[error("cannot read {file}: {source}; name another file with -c")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It says something wrong.
    #[error(transparent)]
    Wrong(#[from] Report),
}

/// Everything that is wrong with a file; displayed one mistake a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    /// The file's name.
    pub file: String,
    /// Each mistake with its line, where it has one.
    pub mistakes: Vec<(Option<usize>, Mistake)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (line, mistake)) in self.mistakes.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            match line {
                Some(line) => write!(f, "{end}{}:{line}: ", self.file)?,
                None => write!(f, "{end}{}: ", self.file)?,
            }
            write!(f, "{} {}", mistake.path, mistake.message)?;
        }
        Ok(())
    }
}

/// Reads a file.
///
/// # Errors
///
/// The file cannot be read, or everything that is wrong in it.
pub fn load(file: &FilePath) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(file)
        .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
    Ok(check(&file.display().to_string(), &text)?)
}

/// Reads a file's text; an empty one gives the defaults.
///
/// # Errors
///
/// Everything that is wrong in it.
pub fn check(file: &str, text: &str) -> Result<Config, Report> {
    let report = |mistakes| Report { file: file.to_owned(), mistakes };
    let value = yaml::document(text).map_err(|yaml::Broken { line, message }| {
        let mistake = Mistake { path: crate::read::Path::default(), message };
        report(vec![(line, mistake)])
    })?;
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    document(&value, sections::config).map_err(|mistakes| {
        let placed = mistakes.into_iter().map(|m| (line::of(text, &m.path), m));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_by_key(|(line, _)| *line);
        report(placed)
    })
}

#[cfg(test)]
mod tests;
