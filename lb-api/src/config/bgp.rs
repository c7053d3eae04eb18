//! The section `bgp`: who we are, and our neighbours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_api_types::config::{Bgp, BgpPeer};
use lb_api_types::policy::BgpPolicy;

use super::policy::{self, Way, chain};
use crate::read::{Cursor, Object};

/// Neighbours at most.
const MAX_PEERS: usize = 1024;
const BGP_PORT: u16 = 179;
const HOLD_TIME_SECS: u16 = 90;
const CONNECT_RETRY_SECS: u16 = 5;
/// RFC 9687 §3.
const SEND_HOLD_TIME_SECS: u16 = 480;

pub(super) fn bgp(cursor: &Cursor<'_>) -> Option<Bgp> {
    let section = cursor.object(&["asn", "router_id", "listen", "sets", "policies", "peers"])?;
    let default = Bgp::default();
    let sets = section.field("sets").and_then(|list| policy::sets(&list)).unwrap_or_default();
    let policies = section.field("policies").and_then(|list| policy::policies(&list, &sets));
    let policies = policies.unwrap_or_default();
    Some(Bgp {
        asn: section.field("asn").and_then(|number| asn(&number)).unwrap_or(default.asn),
        router_id: section.field("router_id").and_then(|id| router_id(&id)),
        listen: section.field("listen").and_then(|s| bgp_listen(&s)).unwrap_or(default.listen),
        peers: section.field("peers").and_then(|list| peers(&list, &policies)).unwrap_or_default(),
        sets,
        policies,
    })
}

pub(super) fn asn(cursor: &Cursor<'_>) -> Option<u32> {
    match cursor.number(0..=u32::MAX)? {
        // RFC 7607.
        0 => cursor.wrong("is 0, which no AS may use (RFC 7607): use 64512 to 65534 in private"),
        // RFC 6793 §9.
        23456 => cursor
            .wrong("is 23456 (AS_TRANS), which stands for others (RFC 6793): use the real number"),
        // RFC 7300.
        65535 | u32::MAX => cursor.wrong("is the last number, which is reserved (RFC 7300)"),
        number => Some(number),
    }
}

fn router_id(cursor: &Cursor<'_>) -> Option<Ipv4Addr> {
    let id = cursor.ipv4()?;
    if id.is_unspecified() {
        // RFC 6286 §2.1.
        return cursor.wrong("is 0.0.0.0, but a BGP identifier is not zero (RFC 6286): leave it out, or use one of this host's IPv4 addresses");
    }
    Some(id)
}

fn bgp_listen(cursor: &Cursor<'_>) -> Option<SocketAddr> {
    let listen = cursor.socket()?;
    if listen.port() == 0 {
        return cursor.wrong("has port 0, which neighbours cannot know: use 179");
    }
    Some(listen)
}

fn peers(cursor: &Cursor<'_>, policies: &[BgpPolicy]) -> Option<Vec<BgpPeer>> {
    let (mut addresses, mut names) = (HashMap::new(), HashMap::new());
    let peers = cursor.list(|cursor| {
        let peer = peer(cursor, policies)?;
        if let Some(first) = addresses.insert(peer.address.to_canonical(), cursor.path().clone()) {
            let address = peer.address;
            return cursor.wrong(format!(
                "has the address {address} of {first}: one neighbour has one session, remove one of the two"
            ));
        }
        let name = peer.name.clone().unwrap_or_else(|| peer.address.to_string());
        if let Some(first) = names.insert(name.clone(), cursor.path().clone()) {
            return cursor.wrong(format!("has the name `{name}` of {first}: rename one of the two"));
        }
        Some(peer)
    })?;
    if peers.len() > MAX_PEERS {
        return cursor.wrong(format!("lists {} peers, but {MAX_PEERS} are the most", peers.len()));
    }
    Some(peers)
}

fn peer(cursor: &Cursor<'_>, policies: &[BgpPolicy]) -> Option<BgpPeer> {
    let peer = cursor.object(&[
        "name",
        "address",
        "asn",
        "port",
        "source",
        "passive",
        "multihop",
        "gtsm_hops",
        "md5_key_file",
        "tcp_user_timeout_secs",
        "send_hold_time_secs",
        "hold_time_secs",
        "connect_retry_secs",
        "import",
        "export",
        "next_hop_self",
        "local_as",
        "remove_private_as",
        "allow_as_in",
        "reject_as_set",
    ])?;
    let address = peer.required("address").and_then(|address| neighbour(&address));
    let asn = peer.required("asn").and_then(|number| asn(&number));
    let source = peer.field("source").and_then(|source| peer_source(&source, address));
    let name = peer.field("name").and_then(|name| peer_name(&name));
    let port = peer.field("port").and_then(|port| port.number(1..=u16::MAX));
    let hold = peer.field("hold_time_secs").and_then(|hold| hold_time(&hold));
    let hold = hold.unwrap_or(HOLD_TIME_SECS);
    let multihop = peer.field("multihop").and_then(|hops| hops.number(1..=u8::MAX));
    let user_timeout =
        peer.field("tcp_user_timeout_secs").and_then(|time| time.number(1..=u16::MAX));
    let retry = peer.field("connect_retry_secs").and_then(|retry| retry.number(1..=u16::MAX));
    let import = peer.field("import").and_then(|names| chain(&names, Way::Import, policies));
    let export = peer.field("export").and_then(|names| chain(&names, Way::Export, policies));
    // RFC 4271 does not say how many are too many; GoBGP, FRR and others stop at 10.
    let allow_as_in = peer.field("allow_as_in").and_then(|times| times.number(0..=10));
    Some(BgpPeer {
        name,
        address: address?,
        asn: asn?,
        port: port.unwrap_or(BGP_PORT),
        source,
        passive: flag(&peer, "passive"),
        multihop,
        gtsm_hops: gtsm_hops(&peer, multihop),
        md5_key_file: peer.field("md5_key_file").and_then(|file| file.file()),
        tcp_user_timeout_secs: user_timeout,
        send_hold_time_secs: send_hold_time(&peer, hold),
        hold_time_secs: hold,
        connect_retry_secs: retry.unwrap_or(CONNECT_RETRY_SECS),
        import: import.unwrap_or_default(),
        export: export.unwrap_or_default(),
        next_hop_self: flag(&peer, "next_hop_self"),
        local_as: peer.field("local_as").and_then(|number| self::asn(&number)),
        remove_private_as: flag(&peer, "remove_private_as"),
        allow_as_in: allow_as_in.unwrap_or_default(),
        reject_as_set: flag(&peer, "reject_as_set"),
    })
}

fn flag(object: &Object<'_>, name: &str) -> bool {
    object.field(name).and_then(|flag| flag.boolean()).unwrap_or_default()
}

fn peer_name(cursor: &Cursor<'_>) -> Option<String> {
    const LONGEST: usize = 64;
    let name = cursor.text()?;
    if !(1..=LONGEST).contains(&name.len()) || name.chars().any(char::is_control) {
        return cursor.wrong(format!("has to be 1 to {LONGEST} printable characters"));
    }
    Some(name.to_owned())
}

fn neighbour(cursor: &Cursor<'_>) -> Option<IpAddr> {
    let address = cursor.address()?;
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return cursor.wrong(format!("is {address}, but a neighbour has a unicast address"));
    }
    if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
        return cursor.wrong(format!(
            "is {address}, but a link-local address does not say which link: use a global one"
        ));
    }
    Some(address)
}

fn peer_source(cursor: &Cursor<'_>, peer: Option<IpAddr>) -> Option<IpAddr> {
    let source = cursor.address()?;
    if peer.is_some_and(|peer| peer.is_ipv4() != source.is_ipv4()) {
        return cursor.wrong(format!("is {source}, but has to be of the family of `address`"));
    }
    Some(source)
}

fn hold_time(cursor: &Cursor<'_>) -> Option<u16> {
    match cursor.number(0..=u16::MAX)? {
        // RFC 4271 §4.2.
        seconds @ 1..=2 => cursor.wrong(format!(
            "is {seconds}, but has to be 0 (never expires) or from 3 to 65535 (RFC 4271)"
        )),
        seconds => Some(seconds),
    }
}

fn gtsm_hops(peer: &Object<'_>, multihop: Option<u8>) -> Option<u8> {
    let field = peer.field("gtsm_hops")?;
    let hops = field.number(1..=254)?;
    if multihop.is_some() {
        return field
            .wrong("excludes `multihop`: GTSM's packets always start at 255, keep one of the two");
    }
    Some(hops)
}

/// RFC 9687 §3: longer than the hold time, which ends the session of a neighbour that also says nothing.
fn send_hold_time(peer: &Object<'_>, hold_time: u16) -> u16 {
    let least = hold_time.saturating_add(1).max(10);
    let field = peer.field("send_hold_time_secs");
    let Some(field) = field else { return SEND_HOLD_TIME_SECS.max(hold_time.saturating_mul(2)) };
    match field.number(1..=u16::MAX) {
        Some(seconds) if seconds < least => {
            field.wrong::<()>(format!(
                "is {seconds}, but has to be {least} or more: above hold_time_secs, and 10 at least (RFC 9687)"
            ));
            SEND_HOLD_TIME_SECS
        }
        seconds => seconds.unwrap_or(SEND_HOLD_TIME_SECS),
    }
}
