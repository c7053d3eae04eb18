//! Files with secrets: paths, or credentials that systemd gives the service (`LoadCredential=`), as `credential:NAME`.

use std::env;
use std::path::{Component, Path, PathBuf};

use crate::read::Cursor;

const PREFIX: &str = "credential:";

/// A file with a secret, as it is said.
pub(super) fn file(cursor: &Cursor<'_>) -> Option<PathBuf> {
    let text = cursor.text()?;
    // Whoever writes the secret itself here is not to find it in an answer or a log.
    let Some(name) = text.strip_prefix(PREFIX) else {
        return match text.starts_with('/') {
            true => cursor.file(),
            false => cursor.wrong(
                "does not begin with /: write the secret into a file and that file's path here, or credential: and a name",
            ),
        };
    };
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return cursor.wrong(format!(
            "is none, since a credential is {PREFIX} and a name without slashes, as `LoadCredential=` in the unit says it"
        ));
    }
    Some(text.into())
}

/// Where a file is. Only whoever is about to read it asks: outside of its service there are no credentials, and a
/// configuration is checked and cleaned up after there, too.
///
/// # Errors
///
/// Half a sentence that follows the field's name.
pub(crate) fn path(said: &Path) -> Result<PathBuf, String> {
    within(said, env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
}

fn within(said: &Path, folder: Option<PathBuf>) -> Result<PathBuf, String> {
    let Some(name) = said.to_str().and_then(|said| said.strip_prefix(PREFIX)) else {
        return Ok(said.to_owned());
    };
    match folder {
        Some(folder) => Ok(folder.join(name)),
        None => Err(format!(
            "names {}, but this service has no credentials: say `LoadCredential={name}:/a/path` in its unit, or the path here",
            said.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_in_the_folder_that_systemd_names() {
        let path =
            |said: &str, folder: Option<&str>| within(Path::new(said), folder.map(PathBuf::from));
        let folder = Some("/run/credentials/lbd.service");
        assert_eq!(path("credential:up", folder), Ok("/run/credentials/lbd.service/up".into()));
        assert_eq!(path("/etc/lbd/up", folder), Ok("/etc/lbd/up".into()));
        let refused = path("credential:up", None).unwrap_err();
        assert!(refused.contains("LoadCredential=up:"), "{refused}");
    }
}
