//! What people should know of the kept state, for as long as its cause is there.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::files::{Version, version};

/// A sentence that holds until its cause is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    said: String,
    cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The file is there.
    There(PathBuf),
    /// The file is what it was.
    AsItWas(PathBuf, Option<Version>),
    /// The folder takes no files.
    Unwritable(PathBuf),
}

impl Notice {
    /// Holds until a file is gone.
    pub(super) fn until_gone(path: PathBuf, said: String) -> Self {
        Self { said, cause: Cause::There(path) }
    }

    /// Holds until a file is another one, or gone.
    pub(super) fn of(path: &Path, said: String) -> Self {
        Self { said, cause: Cause::AsItWas(path.to_owned(), version(path)) }
    }

    /// Holds until a folder can be written.
    pub(super) fn until_written(folder: &Path, said: String) -> Self {
        Self { said, cause: Cause::Unwritable(folder.to_owned()) }
    }

    /// The file that it is about is kept aside: it holds until that is gone.
    pub(super) fn moved(&mut self, from: &Path, to: &Path) {
        if matches!(&self.cause, Cause::AsItWas(path, _) if path == from) {
            self.cause = Cause::There(to.to_owned());
        }
    }

    /// The sentence.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Whether its cause is there.
    #[must_use]
    pub fn holds(&self) -> bool {
        match &self.cause {
            Cause::There(path) => path.exists(),
            Cause::AsItWas(path, was) => version(path) == *was,
            Cause::Unwritable(folder) => access(folder, AccessFlags::W_OK).is_err(),
        }
    }
}
