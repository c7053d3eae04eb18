//! Bearer tokens, kept by their hashes in `tokens.json` of the state folder.
//!
//! A token is 256 random bits, so that a plain SHA-256 is enough: there is nothing to guess, and nothing to slow down.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_api_types::access::{Role, Token, TokenMetadata, TokenSpec, TokenStatus};
use lb_api_types::resource::Condition;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::file::{Before, TokenFile};
use crate::clock::rfc3339;
use crate::vip;

/// Tokens at most.
pub const MAX_TOKENS: usize = 1024;
pub(super) const PREFIX: &str = "lbd_";

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
    file: TokenFile,
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

impl Tokens {
    /// Reads them. Of a damaged file the one before is taken, of two nothing: then nobody is let in by a token.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        let (file, all) = TokenFile::open(folder)?;
        Ok(Self { file, writing: Mutex::default(), all: Mutex::new(all) })
    }

    /// What is not well with what is kept now, if something is.
    pub fn unwell(&self) -> Option<String> {
        self.file.unwell()
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
        self.file.keep(&all, Before::Kept)?;
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
        all.remove(name).ok_or_else(|| unknown(name))?;
        self.file.keep(&all, Before::Rewritten)?;
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
        let kept = all.get(name).ok_or_else(|| unknown(name))?;
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is none of this name; what can be no name may be a token, and is not repeated.
fn unknown(name: &str) -> TokenError {
    TokenError::Unknown(if vip::is_name(name) { name } else { "of this name" }.to_owned())
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
