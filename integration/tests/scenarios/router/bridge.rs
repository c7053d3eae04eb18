//! An interface that becomes the port of a bridge: the fast path goes to the bridge, and says so where that is not named.

use anyhow::ensure;
use integration::wait::eventually;
use lb_api_types::config::Hook;

use super::{HOPS, Router, carries_traffic};
use crate::hello::{Holds as _, SOON};

impl Router {
    /// The fast path is at these interfaces and no others.
    fn is_attached_to(&self, wanted: &[String]) {
        eventually(&format!("the fast path is attached to {wanted:?}"), SOON, || {
            let attached = self.api.status()?.interfaces.into_iter();
            let mut names: Vec<_> = attached.map(|interface| interface.name).collect();
            names.sort_unstable();
            ensure!(names == wanted, "{names:?}");
            Ok(())
        })
        .holds();
    }
}

#[test]
fn a_bridge_carries_traffic_in_place_of_its_ports_and_doctor_says_which_one_to_name() {
    let router = Router::up_with(Hook::Tc, |config| config.dataplane.interfaces.push("br0".into()));
    let run = |command: &str| drop(router.lab.run("lbd", command).holds());
    for command in [
        "ip link add br0 type bridge",
        "ip addr del 10.1.0.1/24 dev eth1",
        "ip -6 addr del 2001:db8:1::1/64 dev eth1",
        "ip link set eth1 master br0",
        "ip link set br0 up",
        "ip addr add 10.1.0.1/24 dev br0",
        "ip -6 addr add 2001:db8:1::1/64 dev br0 nodad",
    ] {
        run(command);
    }
    let hops = (1..=HOPS).map(|hop| format!("eth{}", hop + 1));
    let named: Vec<String> = ["br0".to_owned()].into_iter().chain(hops).collect();
    router.is_attached_to(&named);
    router.route(&(1..HOPS).collect::<Vec<_>>()).holds();
    router.has_ways(HOPS - 1);
    carries_traffic(&router);

    // Another one, which nobody has named.
    run("ip link add br1 type bridge");
    run("ip link set eth9 master br1");
    eventually("doctor says what to name", SOON, || {
        let doctor = router.lab.run("lbd", "lbctl doctor 2>&1 || true")?;
        for words in ["interface eth9 is a port of br1", "name br1 in dataplane.interfaces"] {
            ensure!(doctor.contains(words), "{words}: {doctor}");
        }
        ensure!(!doctor.contains("eth1 "), "its bridge is named: {doctor}");
        Ok(())
    })
    .holds();
    router.is_attached_to(&named);
}
