//! This node: whether it is drained.

use lb_api_types::resource::{Node, NodeSpec};

use super::read_metadata;
use crate::read::Cursor;

/// The name of the one that there is.
pub(crate) const LOCAL: &str = "local";

pub(super) fn read(cursor: &Cursor<'_>) -> Option<Node> {
    let node = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = node.required("metadata").and_then(|cursor| {
        let metadata = read_metadata(&cursor)?;
        match metadata.name.as_str() {
            LOCAL => Some(metadata),
            other => cursor.wrong(format!("names the node {other}, but the one here is {LOCAL}")),
        }
    });
    let spec = node.required("spec").and_then(|spec| {
        let spec = spec.object(&["drain"])?;
        let drain = spec.field("drain").map_or(Some(false), |drain| drain.boolean());
        Some(NodeSpec { drain: drain? })
    });
    Some(Node { metadata: metadata?, spec: spec?, status: None })
}
