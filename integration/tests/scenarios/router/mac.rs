//! A next hop that gets another MAC, as after a failover, while packets flow.

use anyhow::{Context as _, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;

use super::steady::Steady;
use super::{AWAY, FEW, Router};
use crate::hello::{Holds as _, SOON};

const MAC: &str = "02:00:00:00:07:01";

#[test]
fn traffic_follows_a_next_hop_to_its_new_mac_as_soon_as_the_kernel_hears_of_it() {
    let router = Router::up(Hook::Tc);
    router.route(&[1]).holds();
    router.has_ways(1);
    router.flows().holds();
    // It says so itself, as routers do that take over an address.
    for command in [
        "sysctl -qw net.ipv4.conf.eth1.arp_notify=1",
        "sysctl -qw net.ipv6.conf.eth1.ndisc_notify=1",
    ] {
        router.lab.run("hop1", command).holds();
    }
    let (_, slow) = router.counted().holds();
    let steady = Steady::begin(&router.lab, &router.steadily).holds();
    router.lab.run("hop1", &format!("ip link set eth1 address {MAC}")).holds();
    eventually("eBPF has the new MAC for both families", SOON, || {
        let fib = router.api.fib()?;
        for prefix in ["10.99.0.0/24", "2001:db8:99::/64"] {
            let entry = fib.iter().find(|entry| entry.metadata.name == prefix);
            let members = &entry.with_context(|| format!("no {prefix}"))?.status.members;
            let macs: Vec<_> = members.iter().map(|member| member.mac.as_deref()).collect();
            ensure!(macs == [Some(MAC)], "{prefix}: {macs:?}");
        }
        Ok(())
    })
    .holds();
    let lost = steady.end().holds();
    println!("a new MAC: {lost}, so packets were away {:?}", lost.away(1));
    assert!(lost.away(1) < AWAY, "{lost}");
    for to in ["10.99.0.1", "2001:db8:99::1"] {
        router.stream(to.parse().expect("an address")).holds();
    }
    let (_, now) = router.counted().holds();
    assert!(now - slow < FEW, "the kernel forwarded {} packets", now - slow);
}
