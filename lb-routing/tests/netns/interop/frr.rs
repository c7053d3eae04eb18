//! FRR's `bgpd`, without zebra.

use super::{Kind, MORE, Wish};

pub(super) struct Frr;

impl Kind for Frr {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)> {
        let (us, theirs, asn) = (wish.us(), wish.theirs(), wish.asn());
        let family = if wish.v6 { "ipv6" } else { "ipv4" };
        let md5 = format!(" neighbor {us} password {}\n", wish.key.unwrap_or_default());
        let gtsm = format!(" neighbor {us} ttl-security hops 1\n");
        let graceful =
            " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n coalesce-time 6500\n";
        let graceful = Wish::when(wish.graceful, graceful);
        let by_ipv6 = format!(" neighbor {us} capability extended-nexthop\n");
        let by_ipv6 = Wish::when(wish.by_ipv6, &by_ipv6);
        let (md5, gtsm) = (Wish::when(wish.key.is_some(), &md5), Wish::when(wish.gtsm, &gtsm));
        let add_path = format!(" neighbor {us} addpath-tx-all-paths\n");
        let add_path = Wish::when(wish.add_path, &add_path);
        let more = MORE.map(|prefix| format!(" network {prefix} route-map OWN\n")).concat();
        let (more, med) = (Wish::when(wish.more, &more), Wish::when(wish.more, " set metric 50\n"));
        let text = format!(
            "log stdout\n\
             router bgp {asn}\n\
             \x20bgp router-id 10.0.0.2\n\
             \x20no bgp ebgp-requires-policy\n\
             \x20no bgp network import-check\n\
             \x20no bgp default ipv4-unicast\n\
             {graceful}\
             \x20neighbor {us} remote-as 64512\n\
             \x20neighbor {us} timers connect 1\n\
             \x20neighbor {us} timers 80 240\n\
             {md5}{gtsm}{by_ipv6}\
             \x20address-family {family} unicast\n\
             \x20 network {theirs} route-map OWN\n\
             {more}\
             \x20 neighbor {us} activate\n\
             {add_path}\
             \x20exit-address-family\n\
             route-map OWN permit 10\n\
             \x20set community 64513:100\n\
             \x20set large-community 64513:1:2\n\
             {med}"
        );
        vec![("frr.conf", text)]
    }

    fn command(&self, _wish: Wish) -> String {
        "exec /usr/lib/frr/bgpd -f $D/frr.conf -Z -S -i $D/pid --vty_socket $D".to_owned()
    }

    fn show(&self, wish: Wish, prefix: &str) -> String {
        let family = if wish.v6 { "ipv6" } else { "ipv4" };
        format!("vtysh --vty_socket $D -c 'show bgp {family} unicast {prefix}'")
    }

    fn take_key(&self, wish: Wish) -> Option<String> {
        let us = wish.us();
        let said = match wish.key {
            Some(key) => format!("neighbor {us} password {key}"),
            None => format!("no neighbor {us} password"),
        };
        Some(format!(
            "vtysh --vty_socket $D -c 'configure terminal' -c 'router bgp 64513' -c '{said}'"
        ))
    }

    fn refresh(&self, wish: Wish) -> Option<String> {
        Some(format!("vtysh --vty_socket $D -c 'clear bgp {} soft in'", wish.us()))
    }
}
