//! A VIP of its clients' own network, which no router leads to: they ask the link for its MAC.

use std::net::IpAddr;

use anyhow::ensure;
use integration::wait::eventually;
use integration::{demo, traffic};
use lb_api_types::vip::{HealthCheckKind, Vip};

use super::put;
use crate::hello::{Hello, Holds, SOON, address};

/// Beside the upstream router, on lbd's own link to it.
const VIPS: [&str; 2] = ["10.9.1.100", "2001:db8:200::100"];
const OTHER_MAC: &str = "02:00:00:00:01:64";

pub(super) fn vips_are_found_by_who_asks_for_their_mac(hello: &Hello, vips: &[Vip; 2]) {
    let mut here = vips.clone();
    for (vip, address) in here.iter_mut().zip(VIPS) {
        vip.metadata.name += "-on-link";
        vip.spec.address = address.parse().expect("an address");
        vip.spec.advertise = false;
        vip.spec.announce_on = vec!["eth1".to_owned()];
        put(hello, vip);
    }
    let mac = demo::mac(&hello.lab, "lbd", "eth1").holds();
    let neighbour = hello.lab.netns("upstream").holds();
    for vip in &here {
        eventually("who is on the link reaches a pod", SOON, || {
            traffic::request(neighbour, address(vip))
        })
        .holds();
        traffic::requests(neighbour, address(vip), 20).holds().expect(2, 9, 11).holds();
        assert_eq!(known(hello, vip.spec.address), Some(mac.clone()));
        let said = hello.api.vip(&vip.metadata.name).holds().status.expect("it has a status");
        assert!(said.message.starts_with("announced on eth1: 2 of 2"), "{}", said.message);
    }
    assert!(hello.packets_that_ended("neighbour-answered") >= 2);

    // Told unasked of a new MAC: what neighbours knew is replaced.
    hello.lab.run("lbd", &format!("ip link set eth1 address {OTHER_MAC}")).holds();
    eventually("neighbours hear of the new MAC", SOON, || {
        for vip in &here {
            let known = known(hello, vip.spec.address);
            ensure!(known.as_deref() == Some(OTHER_MAC), "{}: {known:?}", vip.spec.address);
        }
        Ok(())
    })
    .holds();
    traffic::requests(neighbour, address(&here[0]), 4).holds().expect(2, 2, 2).holds();

    // Nobody listens there: as soon as that is known, nobody asks for a MAC in vain that serves nothing.
    for vip in &mut here {
        vip.spec.health_check.kind = HealthCheckKind::Tcp;
        vip.spec.health_check.port = Some(9);
        hello.api.put_vip(vip).holds();
        eventually("nobody answers for a VIP without healthy backends", SOON, || {
            hello.lab.run("upstream", "ip neigh flush dev eth2; ip -6 neigh flush dev eth2")?;
            let ask = format!("curl --silent --max-time 1 http://{}/", address(vip));
            ensure!(hello.lab.run("upstream", &ask).is_err(), "it answers");
            let known = known(hello, vip.spec.address);
            ensure!(known.is_none(), "its MAC is {known:?}");
            Ok(())
        })
        .holds();
    }
}

/// The MAC that the upstream router knows of an address.
fn known(hello: &Hello, address: IpAddr) -> Option<String> {
    let shown = hello.lab.run("upstream", &format!("ip neigh show {address} dev eth2")).holds();
    let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
    words.nth(1).map(str::to_owned)
}
