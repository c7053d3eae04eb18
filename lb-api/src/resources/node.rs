//! This node: whether it is drained, and its VIPs withdrawn.

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
        let spec = spec.object(&["drain", "withdraw"])?;
        let drain = spec.field("drain").map_or(Some(false), |drain| drain.boolean());
        let withdraw = match spec.field("withdraw") {
            None => Some(false),
            Some(withdraw) => match (withdraw.boolean()?, drain) {
                (true, Some(false)) => withdraw.wrong(
                    "withdraws VIPs of a node that is not drained: set drain, too, so that traffic moves first",
                ),
                (wanted, _) => Some(wanted),
            },
        };
        Some(NodeSpec { drain: drain?, withdraw: withdraw? })
    });
    Some(Node { metadata: metadata?, spec: spec?, status: None })
}
