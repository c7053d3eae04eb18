//! The words that the scenarios are written in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::api::Api;
use integration::lab::{Lab, Options};
use integration::wait::eventually;
use integration::{bpf, demo, traffic};
use lb_api_types::config::{Config, Hook};
use lb_api_types::vip::Vip;
use nix::sys::signal::Signal;

/// How long anything may take that BGP, health checks and retries have a part in.
pub(crate) const SOON: Duration = Duration::from_secs(40);
pub(crate) const VIP: &str = "203.0.113.10";
pub(crate) const INTERFACES: [&str; 3] = ["eth1", "eth2", "eth3"];
pub(crate) const PODS: [&str; 3] = ["pod1", "pod2", "pod3"];

/// Fails the test with the whole chain of causes.
pub(crate) trait Holds<T> {
    fn holds(self) -> T;
}

impl<T> Holds<T> for Result<T> {
    #[track_caller]
    fn holds(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{error:#}"),
        }
    }
}

/// calico-hello, up.
pub(crate) struct Hello {
    pub(crate) lab: Lab,
    pub(crate) api: Api,
}

impl Hello {
    /// Brings it up on a hook, and sees to it that this hook and no other is attached.
    pub(crate) fn up(hook: Hook) -> Self {
        let hello = Self::up_with(hook, |_| {});
        hello.only_this_hook_is_attached(hook);
        hello
    }

    /// The same with VIP and sessions ready.
    pub(crate) fn up_with_vip(hook: Hook) -> (Self, Vip) {
        let hello = Self::up(hook);
        let vip = hello.create_vip();
        hello.upstream_routes_the_vip();
        (hello, vip)
    }

    /// Brings it up with lbd's configuration changed.
    pub(crate) fn up_with(hook: Hook, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let hello = Self::of(demo::TOPOLOGY, hook, edit);
        hello.sessions_are_established();
        hello
    }

    /// Another topology, whose lbd has the same interfaces.
    pub(crate) fn of(
        topology: &str,
        hook: Hook,
        edit: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Self {
        let mut options = Options::of(topology, None, None).holds();
        options.hook = hook;
        options.edit = Box::new(edit);
        options.capture = true;
        let lab = Lab::up(&options).holds();
        let api = lab.api();
        Self { lab, api }
    }

    pub(crate) fn only_this_hook_is_attached(&self, hook: Hook) {
        eventually("the fast path is attached to every interface", SOON, || {
            let status = self.api.status()?;
            for name in INTERFACES {
                let interface = status.interfaces.iter().find(|interface| interface.name == name);
                let says = interface.with_context(|| format!("lbd does not show {name}"))?.hook;
                ensure!(says == hook, "lbd says that {name} has {says:?}");
                let attached = bpf::attached(&self.lab, "lbd", name)?;
                ensure!(attached == [hook], "the kernel says that {name} has {attached:?}");
            }
            Ok(())
        })
        .holds();
    }

    /// All three sessions, and the pods' routes where packets need them.
    pub(crate) fn sessions_are_established(&self) {
        eventually("all sessions are Established", SOON, || {
            let peers = self.api.peers()?;
            for name in ["upstream", "node1", "node2"] {
                let peer = peers.iter().find(|peer| peer.name == name);
                let peer = peer.with_context(|| format!("lbd has no peer {name}"))?;
                ensure!(peer.state == "Established", "{peer:?}");
            }
            Ok(())
        })
        .holds();
        self.is_in_the_fib("10.244.1.0/26", "eth2", "node1");
        self.is_in_the_fib("10.244.2.0/26", "eth3", "node2");
    }

    pub(crate) fn is_in_the_fib(&self, prefix: &str, interface: &str, node: &str) {
        let mac = demo::mac(&self.lab, node, "eth1").holds();
        let what = format!("{prefix} leads to {node} in the eBPF FIB");
        eventually(&what, SOON, || demo::in_fib(&self.api, prefix, interface, &mac)).holds();
    }

    pub(crate) fn has_left_the_fib(&self, prefix: &str) {
        eventually(&format!("{prefix} has left the eBPF FIB"), SOON, || {
            let fib = self.api.fib()?;
            let entry = fib.iter().find(|entry| entry.metadata.name == prefix);
            ensure!(entry.is_none(), "{entry:?}");
            Ok(())
        })
        .holds();
    }

    /// The topology's own VIP, round robin over three pods; returns when every pod is healthy.
    pub(crate) fn create_vip(&self) -> Vip {
        let vip = demo::vip(&self.lab).holds();
        self.api.put_vip(&vip).holds();
        demo::all_healthy(&self.api, &vip).holds();
        vip
    }

    pub(crate) fn upstream_routes_the_vip(&self) {
        eventually("the upstream router has the VIP, by way of lbd", SOON, || {
            let route = self.lab.run("upstream", &format!("ip route show {VIP}"))?;
            ensure!(route.contains("via 192.0.2.2"), "its kernel has `{}`", route.trim());
            Ok(())
        })
        .holds();
    }

    pub(crate) fn upstream_has_no_route_to_the_vip(&self) {
        eventually("the upstream router has no route to the VIP", SOON, || {
            let route = self.lab.run("upstream", &format!("ip route show {VIP}"))?;
            ensure!(route.trim().is_empty(), "its kernel has `{}`", route.trim());
            Ok(())
        })
        .holds();
    }

    pub(crate) fn request(&self, vip: &Vip) -> Result<String> {
        traffic::request(self.lab.netns("client")?, address(vip))
    }

    pub(crate) fn is_answered(&self, vip: &Vip) {
        eventually("the client reaches a pod through the VIP", SOON, || self.request(vip)).holds();
    }

    pub(crate) fn packets_of_the_fast_path(&self) -> u64 {
        demo::forwarded(&self.api.status().holds().reasons)
    }

    /// Whether lbd's neighbours answer its ARP requests.
    pub(crate) fn answer_arp(&self, answer: bool) {
        for (node, interface) in [("upstream", "eth2"), ("node1", "eth1"), ("node2", "eth1")] {
            let command = if answer {
                "nft delete table netdev no_arp".to_owned()
            } else {
                format!(
                    "nft 'add table netdev no_arp; add chain netdev no_arp in \
                     {{ type filter hook ingress device \"{interface}\" priority 0; }}; \
                     add rule netdev no_arp in meta protocol arp drop'"
                )
            };
            self.lab.run(node, &command).holds();
        }
    }

    /// Packets of flows whose next hop had no MAC: sent by the kernel's neighbour code, from TC or after XDP.
    pub(crate) fn packets_without_neighbour(&self) -> u64 {
        let reasons = self.api.status().holds().reasons;
        let names = ["flow-through-neighbour", "flow-next-hop-unresolved"];
        let those = reasons.iter().filter(|reason| names.contains(&reason.reason.as_str()));
        those.map(|reason| reason.packets).sum()
    }

    /// Packets that met an end, by the name of its reason.
    pub(crate) fn packets_that_ended(&self, name: &str) -> u64 {
        let reasons = self.api.status().holds().reasons;
        reasons.iter().filter(|reason| reason.reason == name).map(|reason| reason.packets).sum()
    }

    pub(crate) fn packets_forwarded_by_the_kernel(&self) -> u64 {
        traffic::forwarded_by_kernel(self.lab.netns("lbd").holds()).holds()
    }

    pub(crate) fn stop(&mut self, node: &str, signal: Signal) {
        self.lab.stop(node, signal).holds();
    }

    pub(crate) fn start(&mut self, node: &str) {
        self.lab.start(node).holds();
    }
}

pub(crate) fn address(vip: &Vip) -> SocketAddr {
    SocketAddr::new(vip.spec.address, vip.spec.port)
}
