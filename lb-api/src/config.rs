//! The configuration file: read whole, with every mistake at once.

pub(crate) mod api;
pub(crate) mod bgp;
pub(crate) mod credential;
pub(crate) mod keys;
mod line;
mod named;
pub(crate) mod policy;
mod resources;
mod sections;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use lb_api_types::config::{Config, Tls};
use serde_json::{Map, Value};

pub(crate) use self::sections::interfaces;
use crate::read::{Mistake, Path, document};
use crate::{http, yaml};

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

/// Reads a file, and none of those that it names.
///
/// # Errors
///
/// The file cannot be read, or everything that is wrong in it.
pub fn read(file: &FilePath) -> Result<Config, ConfigError> {
    Ok(check(&file.display().to_string(), &text_of(file)?)?)
}

/// Reads a file, and checks the keys and certificates that it names.
///
/// # Errors
///
/// The file cannot be read, or everything that is wrong in it or in those.
pub fn load(file: &FilePath) -> Result<Config, ConfigError> {
    let text = text_of(file)?;
    let name = file.display().to_string();
    let config = check(&name, &text)?;
    let mut mistakes = keys::mistakes(&config);
    mistakes.extend(certificates(&config));
    if mistakes.is_empty() { Ok(config) } else { Err(placed(&name, &text, mistakes).into()) }
}

fn text_of(file: &FilePath) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    fs::read_to_string(file).map_err(unreadable)
}

/// What is wrong with the files of TLS. Credentials are looked at where there are any.
fn certificates(config: &Config) -> Option<Mistake> {
    let tls = config.api.tls.as_ref()?;
    let Tls { certificate_file, key_file, client_ca_file, .. } = tls;
    let mut all = [Some(certificate_file), Some(key_file), client_ca_file.as_ref()].into_iter();
    let are_here = all.all(|file| file.is_none_or(|file| credential::path(file).is_ok()));
    let message = are_here.then(|| http::examine(tls).err()).flatten()?;
    let path = Path::default().field("api").field("tls");
    Some(Mistake { path, message: format!("cannot be used: {message}") })
}

/// Mistakes with their lines, in the order of the file.
fn placed(file: &str, text: &str, mistakes: Vec<Mistake>) -> Report {
    let placed = mistakes.into_iter().map(|mistake| (line::of(text, &mistake.path), mistake));
    let mut mistakes: Vec<_> = placed.collect();
    mistakes.sort_by_key(|(line, _)| *line);
    Report { file: file.to_owned(), mistakes }
}

/// Reads a file's text; an empty one gives the defaults.
///
/// # Errors
///
/// Everything that is wrong in it.
pub fn check(file: &str, text: &str) -> Result<Config, Report> {
    let value = yaml::document(text).map_err(|yaml::Broken { line, message }| {
        let mistake = Mistake { path: Path::default(), message };
        Report { file: file.to_owned(), mistakes: vec![(line, mistake)] }
    })?;
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    document(&value, sections::config).map_err(|mistakes| placed(file, text, mistakes))
}

#[cfg(test)]
mod tests;
