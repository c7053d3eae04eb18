//! How much is made in one go, and how members get it.

use bytes::Bytes;

use super::Sending;
use super::out::{Out, OutId};
use super::script::Audience;
use crate::rib::PeerIndex;
use crate::rib::ids::IdSet;
use crate::wire;

/// Octets of messages that are made in one go, about.
pub(super) const PIECE: usize = 1 << 20;
/// Messages of so many octets are shared even where a member gets others beside them.
const SHARED: usize = 4096;

/// Gives a member what is for it: large messages as they are, shared, and small ones in one piece.
pub(super) fn hand_over(
    peer: PeerIndex,
    pieces: &[(Audience, Bytes, u64)],
    sendings: &mut Vec<Sending>,
) {
    let mine = || pieces.iter().filter(|(audience, ..)| audience.has(peer));
    let small = || mine().filter(|(_, bytes, _)| bytes.len() < SHARED);
    let mut send = |bytes, messages| sendings.push(Sending { peer, bytes, messages, marks: 0 });
    for (_, bytes, messages) in mine().filter(|(_, bytes, _)| bytes.len() >= SHARED) {
        send(bytes.clone(), *messages);
    }
    match small().count() {
        0 => {}
        1 => small().for_each(|(_, bytes, messages)| send(bytes.clone(), *messages)),
        _ => {
            let bytes: Vec<u8> = small().flat_map(|(_, bytes, _)| bytes.iter().copied()).collect();
            send(bytes.into(), small().map(|(.., messages)| messages).sum());
        }
    }
}

/// What is left of a piece.
#[derive(Debug)]
pub(super) struct Room {
    /// Octets of a message at most.
    limit: usize,
    used: usize,
    /// Attributes that are in it already.
    seen: IdSet,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, seen: IdSet::default() }
    }

    pub(super) const fn is_used_up(&self) -> bool {
        self.used >= PIECE
    }

    /// A prefix with these attributes. Where they leave little room in a message, they are repeated.
    pub(super) fn take(&mut self, id: OutId, out: Option<&Out>, ipv6: bool) {
        let prefix = if ipv6 { 17 } else { 5 };
        let attributes = out.map_or(0, |out| out.attributes.len());
        let beside = self.limit.saturating_sub(wire::HEADER_LEN + 40 + attributes);
        self.used += prefix * self.limit / beside.max(prefix);
        if self.seen.insert(id.0) {
            self.used += wire::HEADER_LEN + attributes;
        }
    }
}
