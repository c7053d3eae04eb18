//! Any message is read or refused, within its bound of memory; what was read can be written and read again.

use super::framed;
use crate::wire::{
    Attributes, Capability, Context, Framer, MAX_EXPANSION, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN,
    Message, Segment, decode, encode,
};

/// The first octet says how the session reads, and whether the rest is the body of a message of some type or a stream of
/// messages.
pub fn codec(bytes: &[u8]) {
    let [modes, stream @ ..] = bytes else { return };
    let context = Context { four_octet_as: modes & 1 != 0, external: modes & 2 != 0 };
    survive(stream, context);
    survive(&framed(modes >> 2, stream), context);
    let mut framer = Framer::new();
    if modes & 4 != 0 {
        framer.extend();
    }
    framer.push(stream);
    while let Ok(Some(message)) = framer.next_message() {
        survive(message, context);
    }
}

/// Reads bytes that may be anything, and checks what must hold whatever they are.
pub fn survive(bytes: &[u8], context: Context) {
    let message = match decode(bytes, context) {
        Ok(message) => message,
        Err(notification) => {
            assert!(notification.data.len() <= MAX_EXTENDED_LEN);
            assert!(encode(&Message::Notification(notification), context).len() <= MAX_MESSAGE_LEN);
            return;
        }
    };
    assert!(heap(&message) <= MAX_EXPANSION * bytes.len(), "{} bytes held", heap(&message));
    if let Message::Update(update) = &message {
        let announced = update.announced.iter().flat_map(|announced| &announced.prefixes);
        for prefix in update.withdrawn.iter().chain(announced) {
            assert_eq!(prefix.ip(), prefix.network(), "host bits");
        }
        assert_eq!(update.attributes.is_some(), !update.announced.is_empty());
    }
    // What was read can be written, in messages that are read again.
    let written = encode(&message, context);
    let mut framer = Framer::new();
    framer.push(&written);
    while let Some(bytes) = framer.next_message().expect("we write whole messages") {
        decode(bytes, context).expect("we write what we read");
    }
}

/// Heap bytes that a vector holds.
fn held<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// Heap bytes that a decoded message holds.
fn heap(message: &Message) -> usize {
    match message {
        Message::Open(open) => {
            let value = |capability: &Capability| match capability {
                Capability::Unknown { value, .. } => held(value),
                Capability::AddPath(families) => size_of_val(&families[..]),
                Capability::ExtendedNextHop(families) => held(families),
                Capability::GracefulRestart(restart) => held(&restart.families),
                Capability::Multiprotocol(_)
                | Capability::RouteRefresh
                | Capability::ExtendedMessage
                | Capability::EnhancedRouteRefresh
                | Capability::FourOctetAs(_) => 0,
            };
            held(&open.capabilities) + open.capabilities.iter().map(value).sum::<usize>()
        }
        Message::Update(update) => {
            let announced = update.announced.iter().map(|a| held(&a.prefixes)).sum::<usize>();
            held(&update.withdrawn)
                + held(&update.announced)
                + announced
                + held(&update.faults)
                + update.attributes.as_ref().map_or(0, attributes_heap)
        }
        Message::Notification(notification) => held(&notification.data),
        Message::Keepalive | Message::RouteRefresh(_) | Message::RefreshMark(..) => 0,
    }
}

fn attributes_heap(attributes: &Attributes) -> usize {
    let segment = |segment: &Segment| match segment {
        Segment::Sequence(asns)
        | Segment::Set(asns)
        | Segment::ConfedSequence(asns)
        | Segment::ConfedSet(asns) => held(asns),
    };
    held(&attributes.as_path.segments)
        + attributes.as_path.segments.iter().map(segment).sum::<usize>()
        + held(&attributes.communities)
        + held(&attributes.cluster_list)
        + held(&attributes.other)
        + attributes.other.iter().map(|raw| held(&raw.value)).sum::<usize>()
}
