//! The sections of the file, field by field.

use std::collections::BTreeMap;

use lb_api_types::config::{Config, Dataplane, Hook, StateDir, Timeouts, XdpMode};
use lb_api_types::vip::Vip;

use super::api::api;
use super::bgp::bgp;
use super::resources;
use crate::control::{Ports, Shares};
use crate::read::Cursor;
use crate::resources::Resources;
use crate::vip;

/// Interface patterns at most.
const MAX_INTERFACES: usize = 256;
/// `IFNAMSIZ` without its closing zero.
const MAX_INTERFACE_NAME: usize = 15;

/// The whole file.
pub(super) fn config(cursor: &Cursor<'_>) -> Option<Config> {
    let sections = [
        "bgp",
        "dataplane",
        "api",
        "user",
        "state_dir",
        "pools",
        "health_checks",
        "nodes",
        "addresses",
        "static_routes",
        "vips",
    ];
    let file = cursor.object(&sections)?;
    let resources = resources::section(&file);
    Some(Config {
        bgp: file.field("bgp").and_then(|section| bgp(&section)).unwrap_or_default(),
        dataplane: file.field("dataplane").and_then(|s| dataplane(&s)).unwrap_or_default(),
        api: file.field("api").and_then(|section| api(&section)).unwrap_or_default(),
        user: file.field("user").and_then(|user| user_name(&user)),
        state_dir: file
            .field("state_dir")
            .and_then(|dir| dir.file())
            .map_or_else(StateDir::default, StateDir),
        pools: resources.pools().cloned().collect(),
        health_checks: resources.health_checks().cloned().collect(),
        nodes: resources.nodes().cloned().collect(),
        addresses: resources.addresses().cloned().collect(),
        static_routes: resources.static_routes().cloned().collect(),
        vips: file.field("vips").and_then(|list| vips(&list, &resources)).unwrap_or_default(),
    })
}

fn user_name(cursor: &Cursor<'_>) -> Option<String> {
    match cursor.text()? {
        "" => cursor.wrong("is empty: name a user, or leave the field out"),
        "root" | "0" => cursor.wrong("is root, whom lbd need not be: name another user"),
        name => Some(name.to_owned()),
    }
}

/// What `dataplane` may say.
const DATAPLANE: &[&str] = &[
    "hook",
    "xdp_mode",
    "interfaces",
    "redirect_to_peer",
    "pin_dir",
    "max_flow_entries",
    "max_flow_entries_ipv6",
    "max_services",
    "max_backends",
    "max_ring_slots",
    "max_access_prefixes",
    "max_source_addresses",
    "max_counted_clients",
    "max_affinity_clients",
    "max_fib_blocks",
    "max_fib_ipv6_kib",
    "max_fib_groups",
    "max_fib_next_hops",
    "max_fib_buckets",
    "max_early_fragments",
    "early_fragments_secs",
    "client_prefix_v4",
    "client_prefix_v6",
    "sample_flows",
    "timeouts",
];

fn dataplane(cursor: &Cursor<'_>) -> Option<Dataplane> {
    let section = cursor.object(DATAPLANE)?;
    let default = Dataplane::default();
    let hooks = [("auto", Hook::Auto), ("xdp", Hook::Xdp), ("tc", Hook::Tc)];
    let modes =
        [("native", XdpMode::Native), ("generic", XdpMode::Generic), ("auto", XdpMode::Auto)];
    let xdp_mode = section.field("xdp_mode").and_then(|mode| mode.one_of(&modes));
    let named = |field| section.field(field).and_then(|list| interfaces(&list)).unwrap_or_default();
    let pin_dir = section.field("pin_dir").and_then(|dir| {
        let path = dir.file()?;
        if path.starts_with("/sys") {
            return dir.wrong("is below /sys, which `ip netns exec` mounts anew: use a folder such as /run/lbd/bpf");
        }
        Some(path)
    });
    let number = |name, range| section.field(name).and_then(|n| n.number(range));
    let entries = |name| number(name, 1024..=8_388_608);
    let bits = |name, most: u32| number(name, 1..=most).and_then(|n| u8::try_from(n).ok());
    Some(Dataplane {
        hook: section.field("hook").and_then(|h| h.one_of(&hooks)).unwrap_or(default.hook),
        xdp_mode: xdp_mode.unwrap_or_default(),
        interfaces: named("interfaces"),
        redirect_to_peer: named("redirect_to_peer"),
        pin_dir: pin_dir.unwrap_or(default.pin_dir),
        max_flow_entries: entries("max_flow_entries").unwrap_or(default.max_flow_entries),
        max_flow_entries_ipv6: entries("max_flow_entries_ipv6")
            .unwrap_or(default.max_flow_entries_ipv6),
        max_services: number("max_services", 1..=vip::MAX_VIPS as u32)
            .unwrap_or(default.max_services),
        max_backends: number("max_backends", 1..=4_194_304).unwrap_or(default.max_backends),
        max_ring_slots: number("max_ring_slots", 1024..=1 << 28).unwrap_or(default.max_ring_slots),
        max_access_prefixes: number("max_access_prefixes", 1..=1 << 24)
            .unwrap_or(default.max_access_prefixes),
        max_source_addresses: number("max_source_addresses", 1..=1 << 20)
            .unwrap_or(default.max_source_addresses),
        max_counted_clients: number("max_counted_clients", 1..=1 << 23)
            .unwrap_or(default.max_counted_clients),
        max_affinity_clients: number("max_affinity_clients", 1024..=1 << 23)
            .unwrap_or(default.max_affinity_clients),
        max_fib_blocks: number("max_fib_blocks", 4..=1 << 20).unwrap_or(default.max_fib_blocks),
        max_fib_ipv6_kib: number("max_fib_ipv6_kib", 64..=1 << 19)
            .unwrap_or(default.max_fib_ipv6_kib),
        max_fib_groups: number("max_fib_groups", 512..=1 << 20).unwrap_or(default.max_fib_groups),
        max_fib_next_hops: number("max_fib_next_hops", 1024..=1 << 20)
            .unwrap_or(default.max_fib_next_hops),
        max_fib_buckets: number("max_fib_buckets", 4096..=1 << 24)
            .unwrap_or(default.max_fib_buckets),
        max_early_fragments: number("max_early_fragments", 8..=65_536)
            .unwrap_or(default.max_early_fragments),
        early_fragments_secs: number("early_fragments_secs", 2..=30)
            .unwrap_or(default.early_fragments_secs),
        client_prefix_v4: bits("client_prefix_v4", 32).unwrap_or(default.client_prefix_v4),
        client_prefix_v6: bits("client_prefix_v6", 128).unwrap_or(default.client_prefix_v6),
        sample_flows: number("sample_flows", 1..=1_000_000),
        timeouts: section.field("timeouts").and_then(|t| timeouts(&t)).unwrap_or_default(),
    })
}

fn timeouts(cursor: &Cursor<'_>) -> Option<Timeouts> {
    const WEEK: u32 = 604_800;
    const NAMES: [&str; 10] = [
        "tcp_established",
        "tcp_transitory",
        "tcp_closed",
        "half_open",
        "udp_answered",
        "udp",
        "sctp_established",
        "sctp_shutdown",
        "sctp_closed",
        "icmp",
    ];
    let section = cursor.object(&NAMES)?;
    let seconds =
        |name, default| section.field(name).and_then(|n| n.number(1..=WEEK)).unwrap_or(default);
    let default = Timeouts::default();
    let [
        tcp_established,
        tcp_transitory,
        tcp_closed,
        half_open,
        udp_answered,
        udp,
        sctp_established,
        sctp_shutdown,
        sctp_closed,
        icmp,
    ] = NAMES;
    Some(Timeouts {
        tcp_established: seconds(tcp_established, default.tcp_established),
        tcp_transitory: seconds(tcp_transitory, default.tcp_transitory),
        tcp_closed: seconds(tcp_closed, default.tcp_closed),
        half_open: seconds(half_open, default.half_open),
        udp_answered: seconds(udp_answered, default.udp_answered),
        udp: seconds(udp, default.udp),
        sctp_established: seconds(sctp_established, default.sctp_established),
        sctp_shutdown: seconds(sctp_shutdown, default.sctp_shutdown),
        sctp_closed: seconds(sctp_closed, default.sctp_closed),
        icmp: seconds(icmp, default.icmp),
    })
}

/// Names of interfaces, or patterns.
pub(crate) fn interfaces(cursor: &Cursor<'_>) -> Option<Vec<String>> {
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
    let (mut names, mut ports) = (BTreeMap::new(), Ports::default());
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
        if let Err(first) = ports.add(spec, cursor.path().clone()) {
            return cursor.wrong(format!(
                "has the address, protocol and a port of {first}: change one of the two"
            ));
        }
        Some(vip)
    })?;
    let mut shares = Shares::default();
    for vip in &vips {
        if let Some((other, backend)) = shares.with(vip).next() {
            let name = &vip.metadata.name;
            let alone = if vip.spec.answers_alone() { name } else { other };
            return cursor.wrong(format!(
                "give `{name}` and `{other}` the backend {}:{}, but `{alone}` has `full_table: hash`, for which what comes from there \
                 must be its answer alone: use `full_table: drop`, another backend or another port",
                backend.address, backend.port
            ));
        }
        shares.add(vip);
    }
    if vips.len() > vip::MAX_VIPS {
        return cursor.wrong(format!(
            "lists {} VIPs, but {} are the most",
            vips.len(),
            vip::MAX_VIPS
        ));
    }
    Some(vips)
}
