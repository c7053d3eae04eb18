//! The file of tokens, and the one before it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{Kept, TokenError, hash};
use crate::store::{link, may_lack, write_whole};

pub(super) const NAME: &str = "tokens.json";
const VERSION: u32 = 1;

/// Tokens by name.
pub(super) type All = BTreeMap<String, Kept>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// SHA-256 of the tokens: a flipped bit gives nobody another role.
    checksum: String,
    tokens: All,
}

/// Where tokens are kept.
#[derive(Debug)]
pub(super) struct TokenFile {
    folder: PathBuf,
    /// The version of lbd that wrote what was found, where that is a later one: it is left alone.
    later: Option<u32>,
    /// What is there is damaged: it is no file to come back to.
    is_damaged: AtomicBool,
}

/// What becomes of the file before the one that is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// It is what there was: a damaged file costs the last token.
    Kept,
    /// It is written, first: a token that is removed is in no file that may ever be read again.
    Rewritten,
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Unfit {
    Damaged,
    Later(u32),
}

impl TokenFile {
    /// Reads it. Of a damaged one the one before is taken, of two nothing: then nobody is let in by a token. What is damaged
    /// is kept aside.
    pub(super) fn open(folder: PathBuf) -> io::Result<(Self, All)> {
        let (mut later, mut is_damaged) = (None, false);
        let all = match fs::read(folder.join(NAME)) {
            Ok(bytes) => match parse(&bytes) {
                Ok(all) => all,
                Err(Unfit::Later(version)) => {
                    later = Some(version);
                    All::new()
                }
                Err(Unfit::Damaged) => {
                    is_damaged = true;
                    if let Err(error) = fs::copy(folder.join(NAME), aside(&folder)) {
                        tracing::error!(%error, "the damaged file of tokens cannot be kept aside");
                    }
                    before(&folder)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => All::new(),
            Err(error) => return Err(error),
        };
        Ok((Self { folder, later, is_damaged: is_damaged.into() }, all))
    }

    /// What is to be said of it now.
    pub(super) fn unwell(&self) -> Option<String> {
        if let Some(later) = self.is_left_alone() {
            return Some(later.to_string());
        }
        let (path, aside) = (self.folder.join(NAME), aside(&self.folder));
        let (file, remedy) = match (aside.exists(), self.is_damaged.load(Ordering::Relaxed)) {
            (true, _) => (aside, "and remove it"),
            (false, true) => (path, "which writes it anew"),
            (false, false) => return None,
        };
        Some(format!(
            "{} is damaged, so the tokens are those of before its last change, if they are there: make new ones where they lack (`lbctl create token`), {remedy}",
            file.display()
        ))
    }

    /// Why nothing is written, where a later lbd's file is still there.
    fn is_left_alone(&self) -> Option<TokenError> {
        let (version, path) = (self.later?, self.folder.join(NAME));
        path.exists().then_some(TokenError::Later(path, version))
    }

    /// Writes them.
    pub(super) fn keep(&self, all: &All, before: Before) -> Result<(), TokenError> {
        if let Some(later) = self.is_left_alone() {
            return Err(later);
        }
        let kept = self.replace(all, before);
        kept.map_err(|error| TokenError::NotKept(error.to_string()))?;
        self.is_damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn replace(&self, all: &All, before: Before) -> io::Result<()> {
        let document = Document { version: VERSION, checksum: checksum(all), tokens: all.clone() };
        let mut bytes = serde_json::to_vec_pretty(&document)?;
        bytes.push(b'\n');
        let (path, previous) = (self.folder.join(NAME), self.folder.join(previous()));
        match before {
            Before::Kept if !self.is_damaged.load(Ordering::Relaxed) => {
                may_lack(link(&path, &previous))?;
            }
            Before::Kept | Before::Rewritten => self.write(&previous, &bytes)?,
        }
        self.write(&path, &bytes)
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!("{NAME}.new"));
        write_whole(&new, bytes)?;
        fs::rename(new, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }
}

pub(super) fn previous() -> String {
    format!("{NAME}.previous-1")
}

fn aside(folder: &Path) -> PathBuf {
    folder.join(format!("{NAME}.damaged"))
}

/// The tokens before the last change.
fn before(folder: &Path) -> All {
    let before = fs::read(folder.join(previous())).ok();
    before.and_then(|bytes| parse(&bytes).ok()).unwrap_or_default()
}

/// The tokens of a file that is whole.
pub(super) fn parse(bytes: &[u8]) -> Result<All, Unfit> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let document: Result<Document, _> = serde_json::from_slice(bytes);
    match document {
        Ok(it) if it.version == VERSION && it.checksum == checksum(&it.tokens) => Ok(it.tokens),
        Ok(_) | Err(_) => Err(match serde_json::from_slice(bytes) {
            Ok(Versioned { version }) if version > VERSION => Unfit::Later(version),
            Ok(_) | Err(_) => Unfit::Damaged,
        }),
    }
}

fn checksum(tokens: &All) -> String {
    // Text and numbers only: it has JSON.
    hash(&serde_json::to_string(tokens).unwrap_or_default())
}
