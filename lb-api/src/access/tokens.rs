//! Bearer tokens, kept by their hashes in `tokens.json` of the state folder.
//!
//! A token is 256 random bits, so that a plain SHA-256 is enough: there is nothing to guess, and nothing to slow down.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_api_types::access::{Role, Token, TokenMetadata, TokenSpec, TokenStatus};
use lb_api_types::resource::Condition;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::rfc3339;
use crate::store::{link, may_lack, write_whole};

const NAME: &str = "tokens.json";
const VERSION: u32 = 1;
/// Tokens at most.
pub const MAX_TOKENS: usize = 1024;
const PREFIX: &str = "lbd_";

/// Why tokens are not as they are asked to be. Nothing has changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The name is taken.
    #[error("there is a token {0} already: choose another name, or remove that one")]
    Exists(String),
    /// There is none.
    #[error("there is no token {0}")]
    Unknown(String),
    /// No room.
    #[error("there are {MAX_TOKENS} tokens already: remove one first")]
    TooMany,
    /// A later lbd's file stays as it is.
    #[error(
        "{0} was written by a later version ({1}) of lbd and is left alone: run that lbd, or move the file away"
    )]
    Later(PathBuf, u32),
    /// The disk or the kernel refuses.
    #[error("the token cannot be kept: {0}; free or repair the disk")]
    NotKept(String),
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// Nobody has it.
    Unknown,
    /// It was taken once.
    Expired,
}

/// What is kept of a token: its SHA-256 in hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token that somebody brings.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(hash(token))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// All tokens.
#[derive(Debug)]
pub struct Tokens {
    folder: PathBuf,
    /// The version of lbd that wrote the file, where that is a later one: it is left alone.
    later: Option<u32>,
    /// The file was damaged: it is no file to come back to.
    damaged: bool,
    /// Held while the disk is written, which nobody who is let in waits for.
    writing: Mutex<()>,
    all: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    hash: TokenHash,
    role: Role,
    /// Seconds since 1970.
    created: u64,
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// SHA-256 of the tokens: a flipped bit gives nobody another role.
    checksum: String,
    tokens: BTreeMap<String, Kept>,
}

impl Tokens {
    /// Reads them. Of a damaged file the one before is taken, of two nothing: then nobody is let in by a token. What is damaged
    /// is kept aside, and what a later lbd wrote is left alone and lets nobody in. Each comes with a sentence that says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(folder: PathBuf) -> io::Result<(Self, Option<String>)> {
        let path = folder.join(NAME);
        let (mut later, mut damaged, mut warning) = (None, false, None);
        let all = match fs::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(all) => all,
                Err(Unfit::Later(version)) => {
                    later = Some(version);
                    warning = Some(TokenError::Later(path, version).to_string());
                    BTreeMap::new()
                }
                Err(Unfit::Damaged) => {
                    damaged = true;
                    let aside = folder.join(format!("{NAME}.damaged"));
                    let kept = match fs::copy(&path, &aside) {
                        Ok(_) => format!("is kept as {}", aside.display()),
                        Err(error) => format!("cannot be kept aside: {error}"),
                    };
                    warning = Some(format!(
                        "{} is damaged and {kept}; the tokens are those of before its last change, if they are there: make new ones where they lack (`lbctl create token`)",
                        path.display()
                    ));
                    before(&folder)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let (writing, all) = (Mutex::default(), Mutex::new(all));
        Ok((Self { folder, later, damaged, writing, all }, warning))
    }

    /// Makes one, which is known only to whoever asked for it.
    ///
    /// # Errors
    ///
    /// The name is taken, there is no room, or it cannot be kept.
    pub fn make(&self, name: &str, spec: TokenSpec, now: SystemTime) -> Result<Token, TokenError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.lock().clone();
        if all.contains_key(name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if all.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| TokenError::NotKept(error.to_string()))?;
        let token = format!("{PREFIX}{}", hex(&random));
        let created = seconds(now);
        let expires = spec.expires_in_secs.map(|within| created.saturating_add(within));
        let kept = Kept { hash: TokenHash::of(&token), role: spec.role, created, expires };
        let mut made = view(name, &kept, now);
        if let Some(status) = &mut made.status {
            status.token = Some(token);
        }
        all.insert(name.to_owned(), kept);
        self.keep(&all, Before::Kept)?;
        *self.lock() = all;
        Ok(made)
    }

    /// Removes one: from now on it is not taken.
    ///
    /// # Errors
    ///
    /// There is none, or the change cannot be kept.
    pub fn remove(&self, name: &str) -> Result<(), TokenError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.lock().clone();
        all.remove(name).ok_or_else(|| TokenError::Unknown(name.to_owned()))?;
        self.keep(&all, Before::Rewritten)?;
        *self.lock() = all;
        Ok(())
    }

    /// All of them by name, without what they are known by.
    pub fn list(&self, now: SystemTime) -> Vec<Token> {
        self.lock().iter().map(|(name, kept)| view(name, kept, now)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn get(&self, name: &str, now: SystemTime) -> Result<Token, TokenError> {
        let all = self.lock();
        let kept = all.get(name).ok_or_else(|| TokenError::Unknown(name.to_owned()))?;
        Ok(view(name, kept, now))
    }

    /// Whose a token is, and what it allows.
    ///
    /// # Errors
    ///
    /// It is not taken.
    pub fn whose(&self, token: &TokenHash, now: SystemTime) -> Result<(String, Role), Untaken> {
        // What is compared are hashes: how long it takes says nothing of the token.
        let all = self.lock();
        let found = all.iter().find(|(_, kept)| kept.hash == *token);
        match found {
            None => Err(Untaken::Unknown),
            Some((_, token)) if token.expires.is_some_and(|end| end <= seconds(now)) => {
                Err(Untaken::Expired)
            }
            Some((name, token)) => Ok((name.clone(), token.role)),
        }
    }

    fn keep(&self, all: &BTreeMap<String, Kept>, before: Before) -> Result<(), TokenError> {
        let path = self.folder.join(NAME);
        if let Some(version) = self.later {
            return Err(TokenError::Later(path, version));
        }
        let document = Document { version: VERSION, checksum: checksum(all), tokens: all.clone() };
        let keep = || {
            let mut bytes = serde_json::to_vec_pretty(&document)?;
            bytes.push(b'\n');
            let previous = self.folder.join(previous());
            match before {
                Before::Kept if !self.damaged => may_lack(link(&path, &previous))?,
                Before::Kept | Before::Rewritten => self.write(&previous, &bytes)?,
            }
            self.write(&path, &bytes)
        };
        keep().map_err(|error: io::Error| TokenError::NotKept(error.to_string()))
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!("{NAME}.new"));
        write_whole(&new, bytes)?;
        fs::rename(new, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token as people see it.
fn view(name: &str, kept: &Kept, now: SystemTime) -> Token {
    let expires = kept.expires.map(written);
    let valid = match (kept.expires, &expires) {
        (Some(end), Some(moment)) if end <= seconds(now) => {
            Condition::new("Valid", false, "Expired", format!("it is not taken since {moment}"))
        }
        (_, Some(moment)) => {
            Condition::new("Valid", true, "NotExpired", format!("it is taken until {moment}"))
        }
        (_, None) => {
            Condition::new("Valid", true, "NeverExpires", "it is taken until it is removed")
        }
    };
    Token {
        metadata: TokenMetadata { name: name.to_owned() },
        spec: TokenSpec {
            role: kept.role,
            expires_in_secs: kept.expires.map(|end| end.saturating_sub(kept.created)),
        },
        status: Some(TokenStatus {
            conditions: vec![valid],
            created: written(kept.created),
            expires,
            token: None,
        }),
    }
}

fn previous() -> String {
    format!("{NAME}.previous-1")
}

/// What becomes of the file before the one that is written.
#[derive(Clone, Copy)]
enum Before {
    /// It is what there was: a damaged file costs the last token.
    Kept,
    /// It is written, first: a token that is removed is in no file that may ever be read again.
    Rewritten,
}

/// Why a file is not read.
#[derive(Debug)]
enum Unfit {
    Damaged,
    Later(u32),
}

/// The tokens before the last change.
fn before(folder: &Path) -> BTreeMap<String, Kept> {
    let before = fs::read(folder.join(previous())).ok();
    before.and_then(|bytes| parse(&bytes).ok()).unwrap_or_default()
}

/// The tokens of a file that is whole.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Kept>, Unfit> {
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

fn checksum(tokens: &BTreeMap<String, Kept>) -> String {
    // Text and numbers only: it has JSON.
    hash(&serde_json::to_string(tokens).unwrap_or_default())
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn written(seconds: u64) -> String {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map_or_else(|| "never".into(), rfc3339)
}

#[cfg(test)]
mod tests;
