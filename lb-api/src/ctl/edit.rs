//! `edit`: a resource in the operator's editor, and back.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::CtlError;
use super::apply::{dry, no_backend, only_seen};
use super::arguments::{Home, Kind};
use super::client::Client;
use super::diff::wanted;
use super::show::{path_to, yaml};
use crate::yaml as reader;

const HEAD: &str = "\
# Lines that begin with # are left out. An empty file, or one that is as it was, changes nothing.
# Where somebody else changes it meanwhile, yours is refused and kept.
";

/// Opens the editor, and replaces the resource by what it leaves.
pub(super) async fn edit(
    client: &Client,
    kind: Kind,
    name: &str,
    dry_run: bool,
) -> Result<String, CtlError> {
    let called = format!("{} {name}", kind.noun());
    match kind.home() {
        Home::Kept(_) => {}
        Home::Backends if name.contains('/') => {}
        Home::Backends => return Err(no_backend()),
        Home::Tokens => {
            let why = "a token cannot be changed: delete it and create another one";
            return Err(CtlError::Other(why.into()));
        }
        Home::Seen(_) => return Err(only_seen(kind, "changed")),
    }
    let path = path_to(kind, name)?;
    let there = client.get(&path).await?;
    let revision = there.pointer("/metadata/revision").cloned();
    let before = yaml(&wanted(there))?;
    let written = format!("{HEAD}{before}");
    let file = write(&written)?;
    let after =
        open(&file).and_then(|()| fs::read_to_string(&file).map_err(|error| broken(&file, &error)));
    let outcome = match after {
        Err(error) => Err(error),
        Ok(after) => {
            let query = if dry_run { "?dryRun=true" } else { "" };
            replace(client, &format!("{path}{query}"), &before, &after, revision).await
        }
    };
    match outcome {
        Ok(changed) => {
            let _gone_already = fs::remove_file(&file);
            let what = if changed { "updated" } else { "unchanged" };
            Ok(format!("{called} {what}{}\n", dry(dry_run)))
        }
        Err(error) => {
            let why = format!("{called} is as it was: {error}");
            if fs::read_to_string(&file).is_ok_and(|text| text == written) {
                let _gone_already = fs::remove_file(&file);
                return Err(CtlError::Other(why));
            }
            Err(CtlError::Other(format!("{why}; what you wrote is in {}", file.display())))
        }
    }
}

/// Whether something was changed.
async fn replace(
    client: &Client,
    path: &str,
    before: &str,
    after: &str,
    revision: Option<Value>,
) -> Result<bool, CtlError> {
    let documents =
        reader::documents(after).map_err(|broken| CtlError::Other(broken.to_string()))?;
    let mut documents = documents.into_iter();
    let (first, second) = (documents.next(), documents.next());
    let body = match (first, second) {
        (None, _) => return Ok(false),
        (Some(_), Some(_)) => {
            return Err(CtlError::Other("it has several documents: leave one".into()));
        }
        (Some(body), None) => body,
    };
    if yaml(&body)? == before {
        return Ok(false);
    }
    let mut body = body;
    if let (Some(metadata), Some(revision)) =
        (body.get_mut("metadata").and_then(Value::as_object_mut), revision)
    {
        metadata.insert("revision".into(), revision);
    }
    client.put(path, &body).await.map(|_| true)
}

/// A new file that only its owner reads.
fn write(text: &str) -> Result<PathBuf, CtlError> {
    let file = env::temp_dir().join(format!("lbctl-{}.yaml", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| broken(&file, &error))?;
    Ok(file)
}

fn open(file: &Path) -> Result<(), CtlError> {
    let named = ["VISUAL", "EDITOR"].iter().find_map(|name| env::var(name).ok());
    let editor = named.filter(|editor| !editor.trim().is_empty()).unwrap_or_else(|| "vi".into());
    // It may have words of its own, such as `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(file).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CtlError::Other(format!("{editor} ended with {status}"))),
        Err(error) => {
            Err(CtlError::Other(format!("cannot run {editor}: {error}; name another in EDITOR")))
        }
    }
}

fn broken(file: &Path, error: &std::io::Error) -> CtlError {
    CtlError::Other(format!("cannot use {}: {error}", file.display()))
}
