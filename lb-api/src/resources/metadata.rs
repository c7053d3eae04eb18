//! What every resource carries: read in one way for all kinds.

use std::collections::BTreeMap;

use lb_api_types::resource::{Metadata, Tags};

use crate::read::{Cursor, Object};
use crate::vip;

/// Labels of a resource at most.
const MAX_LABELS: usize = 64;
/// Characters of a label's name or value at most.
const MAX_LABEL: usize = 63;

pub(crate) fn read_metadata(cursor: &Cursor<'_>) -> Option<Metadata> {
    let metadata = cursor.object(&["name", "labels", "owner", "revision"])?;
    let revision = match metadata.field("revision") {
        None => Some(None),
        Some(revision) => revision.number(1..=u64::MAX).map(Some),
    };
    let tags = read_tags(&metadata);
    let name = metadata.required("name").and_then(|name| vip::name(&name));
    Some(Metadata { revision: revision?, ..tags?.named(name?) })
}

/// Labels and owner, where they stand beside a name.
pub(crate) fn read_tags(metadata: &Object<'_>) -> Option<Tags> {
    let owner = match metadata.field("owner") {
        None => Some(None),
        Some(owner) => vip::name(&owner).map(Some),
    };
    let labels =
        metadata.field("labels").map_or_else(|| Some(BTreeMap::new()), |l| read_labels(&l));
    Some(Tags { labels: labels?, owner: owner? })
}

fn read_labels(cursor: &Cursor<'_>) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (name, value) in cursor.entries()? {
        if !is_label(name) {
            return value.wrong(format!(
                "is the label `{name}`, but a label's name has 1 to {MAX_LABEL} letters, digits and -_./"
            ));
        }
        let text = value.text()?;
        if !text.is_empty() && !is_label(text) {
            return value.wrong(format!(
                "is `{text}`, but a label's value has at most {MAX_LABEL} letters, digits and -_./"
            ));
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    if labels.len() > MAX_LABELS {
        return cursor.wrong(format!("has {} labels, but {MAX_LABELS} are the most", labels.len()));
    }
    Some(labels)
}

/// Whether a text can be a label's name, or its value where that is not empty.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(plain)
}
