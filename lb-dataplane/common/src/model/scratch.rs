//! The room for a packet's way before the first packet.

use super::family::nobody;
use crate::choose::Composed;
use crate::early::{EarlyHead, FirstCame};
use crate::family::{Family, Header};
use crate::fib::MemberEntry;
use crate::flow::{FlowEntry, Translation};
use crate::fragment::FragmentPorts;
use crate::mss::Options;
use crate::parse::{Ip, Transport};
use crate::pipeline::{Arrival, Came, Found, KNOWN_NOTHING, Scratch, Step};
use crate::quote::Quote;
use crate::service::SourceList;

pub(super) fn empty_scratch<A: Family>() -> Scratch<A> {
    let nothing = nobody();
    let entry = FlowEntry::new(Translation::default(), 0, 0, 0, 0);
    Scratch {
        came: Came::default(),
        ip: Ip {
            source: A::default(),
            destination: A::default(),
            protocol: 0,
            ttl: 0,
            fragment: 0,
            identification: 0,
            total_len: 0,
            transport_at: 0,
        },
        transport: Transport::of_later_fragment(&FragmentPorts {
            source: 0,
            destination: 0,
            seen: 0,
            protocol: 0,
        }),
        quote: Quote {
            key: nothing,
            ip_at: 0,
            transport_at: 0,
            sum_at: 0,
            pad: 0,
            header: Header::default(),
        },
        arrival: Arrival {
            key: nothing,
            sequence: 0,
            acknowledged: 0,
            bytes: 0,
            flags: 0,
            known: KNOWN_NOTHING,
            pad: [0; 2],
        },
        step: Step::default(),
        header: Header::default(),
        member: MemberEntry::default(),
        found: Found::Nothing,
        options: Options::default(),
        made: Composed {
            entry,
            after: nobody(),
            back: nothing,
            back_across: nobody(),
            there: nothing,
            backend: 0,
            sources: SourceList::default(),
            affinity: 0,
            when_full: 0,
            on_exhaustion: 0,
            without: 0,
            shares_way_back: 0,
        },
        early: NO_FRAGMENT,
    }
}

const NO_FRAGMENT: FirstCame = FirstCame {
    head: EarlyHead {
        source: [0; 4],
        destination: [0; 4],
        identification: 0,
        protocol: 0,
        offset: 0,
        len: 0,
        packet_len: 0,
        is_routed: 0,
    },
    to_source: [0; 4],
    to_destination: [0; 4],
    mode: 0,
    port: 0,
    ifindex: 0,
    mtu: 0,
    macs: [0; 6],
};
