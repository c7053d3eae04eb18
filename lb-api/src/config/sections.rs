//! The sections of the file, field by field.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_api_types::config::{
    Bgp, BgpPeer, Config, Dataplane, Export, Hook, Import, StateDir, Timeouts,
};
use lb_api_types::vip::Vip;

use super::api::api;
use super::resources;
use crate::read::{Cursor, Object};
use crate::resources::Resources;
use crate::vip;

/// Neighbours at most.
const MAX_PEERS: usize = 1024;
/// Interface patterns at most.
const MAX_INTERFACES: usize = 256;
/// `IFNAMSIZ` without its closing zero.
const MAX_INTERFACE_NAME: usize = 15;
const BGP_PORT: u16 = 179;
const HOLD_TIME_SECS: u16 = 90;
const CONNECT_RETRY_SECS: u16 = 5;
/// RFC 9687 §3.
const SEND_HOLD_TIME_SECS: u16 = 480;

/// The whole file.
pub(super) fn config(cursor: &Cursor<'_>) -> Option<Config> {
    let sections = ["bgp", "dataplane", "api", "state_dir", "pools", "health_checks", "vips"];
    let file = cursor.object(&sections)?;
    let resources = resources::section(&file);
    Some(Config {
        bgp: file.field("bgp").and_then(|section| bgp(&section)).unwrap_or_default(),
        dataplane: file.field("dataplane").and_then(|s| dataplane(&s)).unwrap_or_default(),
        api: file.field("api").and_then(|section| api(&section)).unwrap_or_default(),
        state_dir: file
            .field("state_dir")
            .and_then(|dir| dir.file())
            .map_or_else(StateDir::default, StateDir),
        pools: resources.pools().cloned().collect(),
        health_checks: resources.health_checks().cloned().collect(),
        vips: file.field("vips").and_then(|list| vips(&list, &resources)).unwrap_or_default(),
    })
}

fn bgp(cursor: &Cursor<'_>) -> Option<Bgp> {
    let section = cursor.object(&["asn", "router_id", "listen", "peers"])?;
    let default = Bgp::default();
    Some(Bgp {
        asn: section.field("asn").and_then(|number| asn(&number)).unwrap_or(default.asn),
        router_id: section.field("router_id").and_then(|id| router_id(&id)),
        listen: section.field("listen").and_then(|s| bgp_listen(&s)).unwrap_or(default.listen),
        peers: section.field("peers").and_then(|list| peers(&list)).unwrap_or_default(),
    })
}

fn asn(cursor: &Cursor<'_>) -> Option<u32> {
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

fn peers(cursor: &Cursor<'_>) -> Option<Vec<BgpPeer>> {
    let (mut addresses, mut names) = (HashMap::new(), HashMap::new());
    let peers = cursor.list(|cursor| {
        let peer = peer(cursor)?;
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

fn peer(cursor: &Cursor<'_>) -> Option<BgpPeer> {
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
    let import = peer
        .field("import")
        .and_then(|i| i.one_of(&[("none", Import::None), ("all", Import::All)]));
    let export = peer.field("export").and_then(|export| {
        export.one_of(&[("none", Export::None), ("vips", Export::Vips), ("all", Export::All)])
    });
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

fn dataplane(cursor: &Cursor<'_>) -> Option<Dataplane> {
    let section = cursor.object(&[
        "hook",
        "interfaces",
        "pin_dir",
        "max_flow_entries",
        "max_flow_entries_ipv6",
        "max_services",
        "max_backends",
        "max_ring_slots",
        "timeouts",
    ])?;
    let default = Dataplane::default();
    let hooks = [("auto", Hook::Auto), ("xdp", Hook::Xdp), ("tc", Hook::Tc)];
    let interfaces = section.field("interfaces").and_then(|list| interfaces(&list));
    let pin_dir = section.field("pin_dir").and_then(|dir| {
        let path = dir.file()?;
        if path.starts_with("/sys") {
            return dir.wrong("is below /sys, which `ip netns exec` mounts anew: use a folder such as /run/lbd/bpf");
        }
        Some(path)
    });
    let number = |name, range| section.field(name).and_then(|n| n.number(range));
    let entries = |name| number(name, 1024..=8_388_608);
    Some(Dataplane {
        hook: section.field("hook").and_then(|h| h.one_of(&hooks)).unwrap_or(default.hook),
        interfaces: interfaces.unwrap_or_default(),
        pin_dir: pin_dir.unwrap_or(default.pin_dir),
        max_flow_entries: entries("max_flow_entries").unwrap_or(default.max_flow_entries),
        max_flow_entries_ipv6: entries("max_flow_entries_ipv6")
            .unwrap_or(default.max_flow_entries_ipv6),
        max_services: number("max_services", 1..=vip::MAX_VIPS as u32)
            .unwrap_or(default.max_services),
        max_backends: number("max_backends", 1..=4_194_304).unwrap_or(default.max_backends),
        max_ring_slots: number("max_ring_slots", 1024..=1 << 28).unwrap_or(default.max_ring_slots),
        timeouts: section.field("timeouts").and_then(|t| timeouts(&t)).unwrap_or_default(),
    })
}

fn timeouts(cursor: &Cursor<'_>) -> Option<Timeouts> {
    const WEEK: u32 = 604_800;
    const NAMES: [&str; 6] =
        ["tcp_established", "tcp_transitory", "tcp_closed", "half_open", "udp_answered", "udp"];
    let section = cursor.object(&NAMES)?;
    let seconds =
        |name, default| section.field(name).and_then(|n| n.number(1..=WEEK)).unwrap_or(default);
    let default = Timeouts::default();
    let [tcp_established, tcp_transitory, tcp_closed, half_open, udp_answered, udp] = NAMES;
    Some(Timeouts {
        tcp_established: seconds(tcp_established, default.tcp_established),
        tcp_transitory: seconds(tcp_transitory, default.tcp_transitory),
        tcp_closed: seconds(tcp_closed, default.tcp_closed),
        half_open: seconds(half_open, default.half_open),
        udp_answered: seconds(udp_answered, default.udp_answered),
        udp: seconds(udp, default.udp),
    })
}

fn interfaces(cursor: &Cursor<'_>) -> Option<Vec<String>> {
    let patterns = cursor.list(|cursor| {
        let pattern = cursor.text()?;
        let fixed = pattern.chars().filter(|&c| c != '*').count();
        let odd = pattern.chars().find(|&c| c == '/' || c == ':' || !c.is_ascii_graphic());
        if let Some(odd) = odd {
            return cursor.wrong(format!(
                "is `{pattern}`, but no interface has {odd:?} in its name: write a name, or a pattern with * such as eth*"
            ));
        }
        if pattern.is_empty() || fixed > MAX_INTERFACE_NAME {
            return cursor.wrong(format!(
                "is `{pattern}`, but an interface's name has 1 to {MAX_INTERFACE_NAME} characters"
            ));
        }
        Some(pattern.to_owned())
    })?;
    if patterns.len() > MAX_INTERFACES {
        return cursor.wrong(format!("lists more than {MAX_INTERFACES}: use patterns with *"));
    }
    Some(patterns)
}

fn vips(cursor: &Cursor<'_>, resources: &Resources) -> Option<Vec<Vip>> {
    let (mut names, mut services) = (BTreeMap::new(), BTreeMap::new());
    let vips = cursor.list(|cursor| {
        let vip = vip::read(cursor)?;
        let (name, spec) = (&vip.metadata.name, &vip.spec);
        if vip.metadata.revision.is_some() {
            return cursor
                .wrong("has metadata.revision, which only a VIP made over REST has: take it out");
        }
        if let Some(why) = resources::lacks(&vip, resources) {
            return cursor.wrong(why);
        }
        if let Some(first) = names.insert(name.clone(), cursor.path().clone()) {
            return cursor
                .wrong(format!("has the name `{name}` of {first}: rename one of the two"));
        }
        let service = (spec.address, spec.port, spec.protocol);
        if let Some(first) = services.insert(service, cursor.path().clone()) {
            return cursor.wrong(format!(
                "has the address, port and protocol of {first}: change one of the two"
            ));
        }
        Some(vip)
    })?;
    if vips.len() > vip::MAX_VIPS {
        return cursor.wrong(format!(
            "lists {} VIPs, but {} are the most",
            vips.len(),
            vip::MAX_VIPS
        ));
    }
    Some(vips)
}
