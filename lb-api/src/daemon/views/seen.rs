//! What is only seen, as people see it.

use std::collections::HashMap;

use lb_api_types::config;
use lb_api_types::resource::Condition;
use lb_api_types::view::{
    EarlyFragmentsView, Flow, FlowSpec, FlowStatus, Interface, InterfaceSpec, InterfaceStatus,
    ReasonView, SeenMetadata, ServiceAuditView,
};
use lb_api_types::vip;
use lb_dataplane::plan::Audit;
use lb_dataplane::table::Protocol;
use lb_dataplane::{HeldCounts, ReasonCount};
use lb_routing::Link;

use super::mac;
use crate::control::Ports;
use crate::daemon::attach::{self, Instead, Lacking};

/// An interface, with the hooks that the fast path is attached at, and what keeps it from this one, if that is known.
pub(super) fn interface(
    link: Link,
    hooks: &HashMap<u32, config::Hook>,
    reasons: Vec<ReasonView>,
    wanted: &config::Dataplane,
    instead: Option<Instead>,
    why_not: Option<&str>,
) -> Interface {
    let hook = hooks.get(&link.ifindex).copied();
    let attach = attach::is_wanted(&wanted.interfaces, &link.name);
    let up = match link.up {
        true => Condition::new("Up", true, "Carrier", "it is up and has carrier"),
        false => Condition::new("Up", false, "NoCarrier", "it is down, or has no carrier"),
    };
    let is_there = |instead: &Instead| match instead {
        Instead::Below(at, _) | Instead::Whole(at, _) => hooks.contains_key(at),
    };
    let attached = match (hook, attach, instead.filter(is_there)) {
        (Some(config::Hook::Xdp), ..) => {
            Condition::new("Attached", true, "Xdp", "the fast path is attached at XDP")
        }
        (Some(config::Hook::Tc | config::Hook::Auto), ..) => {
            Condition::new("Attached", true, "Tc", "the fast path is attached at TC")
        }
        (None, true, Some(Instead::Below(_, name))) => {
            let what = format!("its frames are handled where they come in, on {name}");
            Condition::new("Attached", true, "Below", what)
        }
        (None, true, Some(Instead::Whole(_, name))) => {
            let what = format!("the fast path is attached to {name}, of which this is a port");
            Condition::new("Attached", false, "Port", what)
        }
        (None, true, None) if !link.ethernet => {
            let why = "the fast path is not attached: it is no Ethernet interface";
            Condition::new("Attached", false, "NotEthernet", why)
        }
        (None, true, None) => {
            let why = why_not.unwrap_or("the fast path is not attached yet, and is to be");
            Condition::new("Attached", false, "NotAttached", why)
        }
        (None, false, _) => {
            let why = "the fast path is not attached: dataplane.interfaces does not name it";
            Condition::new("Attached", false, "NotAsked", why)
        }
    };
    Interface {
        metadata: SeenMetadata::of(link.name),
        spec: InterfaceSpec { attach, hook: wanted.hook },
        status: InterfaceStatus {
            conditions: vec![up, attached],
            index: link.ifindex,
            mac: (link.mac != [0; 6]).then(|| mac(link.mac)),
            mtu: link.mtu,
            up: link.up,
            hook,
            reasons,
        },
    }
}

/// Those that came.
pub(super) fn reasons(counts: Vec<ReasonCount>) -> Vec<ReasonView> {
    let came = counts.into_iter().filter(|count| count.packets > 0);
    came.map(reason).collect()
}

/// What became of fragments that came early.
pub(super) fn early_fragments(held: HeldCounts) -> EarlyFragmentsView {
    let HeldCounts { released, expired, refused, overlapping } = held;
    EarlyFragmentsView { released, expired, refused, overlapping }
}

/// What became of packets.
pub(super) fn reason(count: ReasonCount) -> ReasonView {
    ReasonView {
        reason: count.reason.name().into(),
        verdict: count.kind.name().into(),
        packets: count.packets,
        bytes: count.bytes,
    }
}

/// A flow, with the names of VIPs by their ports.
pub(super) fn flow(flow: &lb_dataplane::Flow, names: &Ports<String>) -> Flow {
    let protocol = match flow.protocol {
        Protocol::Tcp => vip::Protocol::Tcp,
        Protocol::Udp => vip::Protocol::Udp,
        Protocol::Sctp => vip::Protocol::Sctp,
        Protocol::Icmp => vip::Protocol::Icmp,
    };
    let word = protocol.name();
    let service = names.of(flow.vip.ip(), protocol, flow.vip.port()).cloned();
    let has_vip = match &service {
        Some(name) => Condition::new("HasVip", true, "Served", format!("it is of VIP {name}")),
        None => {
            let why = "no VIP has its address and port any more: it goes on until it ends";
            Condition::new("HasVip", false, "VipGone", why)
        }
    };
    Flow {
        metadata: SeenMetadata::of(format!("{word}/{}/{}", flow.client, flow.vip)),
        spec: FlowSpec {
            protocol: word.into(),
            client: flow.client.to_string(),
            vip: flow.vip.to_string(),
        },
        status: FlowStatus {
            conditions: vec![has_vip],
            backend: flow.backend.to_string(),
            service,
            state: flow.state.name().into(),
            idle_secs: flow.idle.as_secs(),
        },
    }
}

/// Whether every session is there.
pub(super) fn sessions(established: usize, peers: usize) -> Condition {
    let said = format!("{established} of {peers} sessions are Established");
    match (established == peers, peers) {
        (_, 0) => Condition::new("Established", false, "NoPeers", "there is no neighbour"),
        (true, _) => Condition::new("Established", true, "AllEstablished", said),
        (false, _) => Condition::new("Established", false, "SomeMissing", said),
    }
}

/// What holds of the appliance as a whole.
pub(super) fn conditions(
    wanted: &config::Dataplane,
    attached: usize,
    lacking: &[Lacking],
    warnings: &[String],
) -> Vec<Condition> {
    let attached = match (attached, wanted.interfaces.is_empty()) {
        (1.., _) if let [first, rest @ ..] = lacking => {
            let others = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} others"),
            };
            let Lacking { name, why } = first;
            let why = format!(
                "the fast path is not attached to {name}{others}, so no VIP is advertised: {why}"
            );
            Condition::new("Attached", false, "InPart", why)
        }
        (0, true) => {
            let why = "no interface is configured: name some in dataplane.interfaces";
            Condition::new("Attached", false, "NotAsked", why)
        }
        (0, false) => {
            let why = "the fast path is attached to no interface: `lbctl doctor` says why";
            Condition::new("Attached", false, "NotAttached", why)
        }
        (count, _) => {
            let what = format!("the fast path is attached to {count} interfaces");
            Condition::new("Attached", true, "Attached", what)
        }
    };
    let quiet = match warnings {
        [] => Condition::new("NoWarnings", true, "AllWell", "nothing is to be looked at"),
        [one] => Condition::new("NoWarnings", false, "Warned", one.as_str()),
        [first, rest @ ..] => {
            let more = format!("{first}; and {} more", rest.len());
            Condition::new("NoWarnings", false, "Warned", more)
        }
    };
    vec![attached, quiet]
}

/// What an audit of the maps of services found.
pub(super) fn service_audit(audit: Audit, repair: bool) -> ServiceAuditView {
    let intact = audit.differences() == 0;
    ServiceAuditView {
        intact,
        repaired: repair && !intact,
        services: audit.services,
        backends: audit.backends,
        wrong_services: audit.wrong_services,
        wrong_backends: audit.wrong_backends,
        wrong_rings: audit.wrong_rings,
        wrong_sources: audit.wrong_sources,
        wrong_prefixes: audit.wrong_prefixes,
        findings: audit.told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_says_itself_what_keeps_the_fast_path_from_it() {
        let link = Link {
            ifindex: 2,
            name: "eth0".into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            ethernet: true,
            controller: None,
            vlan: None,
        };
        let wanted = config::Dataplane { interfaces: vec!["eth*".into()], ..Default::default() };
        let said = |hooks: &[(u32, config::Hook)], why| {
            let hooks = hooks.iter().copied().collect();
            let seen = interface(link.clone(), &hooks, vec![], &wanted, None, why);
            let attached = seen.status.conditions.into_iter().find(|one| one.kind == "Attached");
            let attached = attached.expect("it has this condition");
            (attached.reason, attached.message)
        };
        let why = "interface eth0 is not attached to: the kernel refuses program lbd_xdp";
        assert_eq!(said(&[], Some(why)), ("NotAttached".into(), why.into()));
        assert!(said(&[], None).1.ends_with("not attached yet, and is to be"));
        assert_eq!(said(&[(2, config::Hook::Tc)], Some(why)).0, "Tc");
    }

    #[test]
    fn it_is_said_which_interface_keeps_vips_from_being_advertised() {
        let wanted = config::Dataplane { interfaces: vec!["eth*".into()], ..Default::default() };
        let lacking = ["eth1", "eth2"].map(|name| Lacking {
            name: name.into(),
            why: format!("interface {name} carries another XDP program"),
        });
        let of = |attached, lacking| conditions(&wanted, attached, lacking, &[]).swap_remove(0);
        assert_eq!(of(1, &[]).reason, "Attached");
        assert_eq!(of(0, &lacking[..]).reason, "NotAttached");
        let in_part = of(1, &lacking[..]);
        assert_eq!((in_part.reason.as_str(), in_part.status), ("InPart", false.into()));
        assert!(
            in_part.message.contains("not attached to eth1 and 1 others"),
            "{}",
            in_part.message
        );
        assert!(in_part.message.ends_with("interface eth1 carries another XDP program"));
    }
}
