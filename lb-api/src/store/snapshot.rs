//! A snapshot: all VIPs, as one JSON document that people can read.

use lb_api_types::vip::Vip;
use serde::Serialize;
use serde_json::{Value, json};

use super::{crc32, lists, object_with_lists};
use crate::read::{Cursor, document};
use crate::resources::Resources;
use crate::vip;

/// The form of the file; one that this daemon does not know is never touched. Before 4 there was no journal.
pub(super) const VERSION: u64 = 4;

#[derive(Serialize)]
struct Document {
    checksum: String,
    #[serde(flatten)]
    content: Value,
}

/// What a snapshot says.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) version: u64,
    pub(super) revision: u64,
    pub(super) vips: Vec<Vip>,
    pub(super) resources: Resources,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Unfit {
    /// In words.
    Damaged(String),
    /// It was written by a later version.
    Later(u64),
    /// It is whole, and says what this version does not know.
    Foreign(String),
}

pub(super) fn bytes<'a>(
    revision: u64,
    vips: impl Iterator<Item = &'a Vip>,
    resources: &Resources,
) -> serde_json::Result<Vec<u8>> {
    let vips: Vec<&Vip> = vips.collect();
    let mut content = json!({"version": VERSION, "revision": revision, "vips": vips});
    if let (Value::Object(all), Value::Object(lists)) = (&mut content, resources.to_value()?) {
        all.extend(lists);
    }
    let document = Document { checksum: checksum(&content.to_string()), content };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn parse(bytes: &[u8]) -> Result<Snapshot, Unfit> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Unfit::Damaged(error.to_string()))?;
    let found = value["version"].as_u64().unwrap_or_default();
    // Version 1 had none, and version 2's was of two of its fields.
    let is = match (value.get("checksum"), found) {
        (Some(_), 3..) => checksum(&without_checksum(&value)),
        (Some(_), _) => checksum(&format!("{}{}", value["revision"], value["vips"])),
        (None, _) => String::new(),
    };
    if value.get("checksum").is_some_and(|said| *said != is) {
        return Err(Unfit::Damaged(
            "its checksum is not that of its content; who edits it by hand takes the field checksum out".into(),
        ));
    }
    // Only now: a flipped bit of the version is damage like any other.
    if found > VERSION {
        return Err(Unfit::Later(found));
    }
    document(&value, read).map_err(|mistakes| {
        let first = mistakes.first().map(|m| format!("{} {}", m.path, m.message));
        let first = first.unwrap_or_default();
        // What has its checksum is as some lbd wrote it, so it is not damage.
        if value.get("checksum").is_some() { Unfit::Foreign(first) } else { Unfit::Damaged(first) }
    })
}

/// What the file says, but for its checksum.
fn without_checksum(value: &Value) -> String {
    let mut content = value.clone();
    if let Value::Object(fields) = &mut content {
        fields.remove("checksum");
    }
    content.to_string()
}

fn read(cursor: &Cursor<'_>) -> Option<Snapshot> {
    let file = object_with_lists(cursor, &["version", "checksum", "revision", "vips"])?;
    let version = file.required("version")?.number(1..=VERSION)?;
    let revision =
        file.field("revision").map_or(Some(0), |revision| revision.number(0..=u64::MAX))?;
    let vips = file.required("vips")?.list(vip::read)?;
    let resources = lists(&file)?.into_iter().collect();
    Some(Snapshot { version, revision, vips, resources })
}

/// Of what is kept in its shortest form.
fn checksum(content: &str) -> String {
    format!("crc32:{:08x}", crc32(content.as_bytes()))
}
