//! What the daemon counts, as the text that Prometheus reads (exposition format 0.0.4).

use std::fmt::{Display, Write};

use lb_api_types::config::Hook;
use lb_api_types::resource::Condition;
use lb_api_types::view::{
    EarlyFragmentsView, FibUsageView, Interface, ListenView, MessageCounts, PeerView, ReasonView,
    Status,
};
use lb_api_types::vip::{BackendStatus, Health, Vip};

/// What is told.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) status: Status,
    /// Every reason, those that never came included.
    pub(super) reasons: Vec<ReasonView>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) vips: Vec<Vip>,
    pub(super) peers: Vec<PeerView>,
    /// Who may come without being named.
    pub(super) listening: Vec<ListenView>,
    /// Clients that watch events.
    pub(super) watchers: usize,
    /// Those that were cut because they were too slow.
    pub(super) overruns: u64,
    /// Logins that failed, by reason.
    pub(super) failures: [(&'static str, u64); 6],
}

/// The text.
pub(super) fn render(sample: &Sample) -> String {
    let mut text = Text::default();
    appliance(&mut text, sample);
    attachment(&mut text, sample);
    fib(&mut text, &sample.status.fib);
    packets(&mut text, &sample.reasons);
    interfaces(&mut text, &sample.interfaces);
    vips(&mut text, &sample.vips);
    backends(&mut text, &sample.vips);
    peers(&mut text, &sample.peers);
    listening(&mut text, &sample.listening);
    text.0
}

fn appliance(text: &mut Text, Sample { status, watchers, overruns, failures, .. }: &Sample) {
    text.gauge("lbd_build_info", "Which lbd this is.");
    text.line(&[("version", &status.version)], 1);
    text.gauge("lbd_uptime_seconds", "Seconds since the daemon started.");
    text.line(&[], status.uptime_secs);
    text.gauge("lbd_warnings", "Sentences of `lbctl get status` that somebody should look at.");
    text.line(&[], status.warnings.len());
    if let Some(seconds) = status.certificate_expires_secs {
        text.gauge(
            "lbd_certificate_expires_seconds",
            "Seconds until the first of the API's certificates expires.",
        );
        text.line(&[], seconds);
    }
    text.counter("lbd_flow_events_lost_total", "Events of flows that are watched which were lost.");
    text.line(&[], status.flow_events_lost);
    let early =
        "Fragments to VIPs and from backends that came before the first one of their datagram.";
    text.counter("lbd_early_fragments_total", early);
    let EarlyFragmentsView { released, expired, refused, overlapping } = status.early_fragments;
    let became = [
        ("released", released),
        ("expired", expired),
        ("refused", refused),
        ("overlapping", overlapping),
    ];
    for (became, count) in became {
        text.line(&[("became", &became)], count);
    }
    text.gauge("lbd_event_watchers", "Clients that watch events.");
    text.line(&[], watchers);
    text.counter("lbd_event_watchers_cut_total", "Clients that watched events and were cut.");
    text.line(&[("reason", &"overrun")], overruns);
    text.counter("lbd_logins_failed_total", "Logins that failed, by why.");
    for (reason, count) in failures {
        text.line(&[("reason", reason)], count);
    }
}

fn attachment(text: &mut Text, Sample { status, interfaces, .. }: &Sample) {
    let attached = "Whether the fast path is attached to interfaces that it is to be on.";
    text.gauge("lbd_interface_attached", attached);
    for interface in &status.interfaces {
        let hook = match interface.hook {
            Hook::Xdp => "xdp",
            Hook::Tc | Hook::Auto => "tc",
        };
        text.line(&[("interface", &interface.name), ("hook", &hook)], 1);
    }
    let is_lacking = |it: &Condition| it.kind == "Attached" && it.reason == "NotAttached";
    let lacking = interfaces.iter().filter(|one| one.status.conditions.iter().any(is_lacking));
    for interface in lacking {
        text.line(&[("interface", &interface.metadata.name), ("hook", &"none")], 0);
    }
}

fn fib(text: &mut Text, fib: &FibUsageView) {
    text.gauge("lbd_fib_routes", "Routes of the eBPF FIB.");
    text.line(&[("family", &"ipv4")], fib.routes_v4);
    text.line(&[("family", &"ipv6")], fib.routes_v6);
    for (name, help, value) in [
        ("lbd_fib_groups", "Next-hop groups.", fib.groups),
        ("lbd_fib_members", "Ways out that groups name.", fib.members),
        ("lbd_fib_chunks", "IPv4 second-level chunks in use.", fib.chunks),
        ("lbd_fib_chunks_max", "IPv4 second-level chunks that there are.", fib.chunks_max),
        ("lbd_fib_node_bytes", "Bytes of IPv6 nodes in use.", fib.node_bytes),
        ("lbd_fib_node_bytes_max", "Bytes of IPv6 nodes that there are.", fib.node_bytes_max),
        ("lbd_fib_left_out", "Routes and groups that there is no room for.", fib.left_out),
        ("lbd_fib_dropped", "Those of them whose packets are dropped.", fib.dropped),
    ] {
        text.gauge(name, help);
        text.line(&[], value);
    }
    text.counter("lbd_fib_updates_total", "Changes of the eBPF FIB.");
    text.line(&[("result", &"done")], fib.updates);
    text.line(&[("result", &"refused")], fib.refused);
}

fn packets(text: &mut Text, reasons: &[ReasonView]) {
    text.counter("lbd_packets_total", "Packets by what became of them and why.");
    for count in reasons {
        text.line(&[("reason", &count.reason), ("verdict", &count.verdict)], count.packets);
    }
    text.counter("lbd_packet_bytes_total", "Bytes of frames by what became of them and why.");
    for count in reasons {
        text.line(&[("reason", &count.reason), ("verdict", &count.verdict)], count.bytes);
    }
}

fn interfaces(text: &mut Text, interfaces: &[Interface]) {
    let counts = || {
        let of = |one: &Interface| {
            let name = one.metadata.name.clone();
            one.status.reasons.clone().into_iter().map(move |count| (name.clone(), count))
        };
        interfaces.iter().flat_map(of).collect::<Vec<_>>()
    };
    text.counter(
        "lbd_interface_packets_total",
        "Packets by the interface that they came in through.",
    );
    for (interface, count) in counts() {
        let labels: &[(&str, &dyn Display)] =
            &[("interface", &interface), ("reason", &count.reason), ("verdict", &count.verdict)];
        text.line(labels, count.packets);
    }
    text.counter("lbd_interface_packet_bytes_total", "Bytes of their frames.");
    for (interface, count) in counts() {
        let labels: &[(&str, &dyn Display)] =
            &[("interface", &interface), ("reason", &count.reason), ("verdict", &count.verdict)];
        text.line(labels, count.bytes);
    }
}

fn vips(text: &mut Text, vips: &[Vip]) {
    text.gauge("lbd_vip_info", "What each VIP is.");
    for vip in vips {
        let protocol = vip.spec.protocol.name();
        let (address, port) = (&vip.spec.address, &vip.spec.port);
        let labels: &[(&str, &dyn Display)] = &[
            ("vip", &vip.metadata.name),
            ("address", address),
            ("port", port),
            ("protocol", &protocol),
        ];
        text.line(labels, 1);
    }
    let mut each = |kind: Kind, name: &str, help: &str, value: fn(&Vip) -> Option<u64>| {
        text.family(kind, name, help);
        for vip in vips {
            if let Some(value) = value(vip) {
                text.line(&[("vip", &vip.metadata.name)], value);
            }
        }
    };
    each(Kind::Gauge, "lbd_vip_serving", "Whether the fast path serves the VIP.", |vip| {
        Some(vip.status.as_ref()?.serving.into())
    });
    each(Kind::Gauge, "lbd_vip_advertised", "Whether BGP advertises the VIP's address.", |vip| {
        Some(vip.status.as_ref()?.advertised.into())
    });
    each(Kind::Counter, "lbd_vip_packets_total", "Packets from clients to backends.", |vip| {
        Some(vip.status.as_ref()?.packets)
    });
    each(Kind::Counter, "lbd_vip_bytes_total", "Bytes of these packets' frames.", |vip| {
        Some(vip.status.as_ref()?.bytes)
    });
    let replies = "Packets from backends to clients.";
    each(Kind::Counter, "lbd_vip_reply_packets_total", replies, |vip| {
        Some(vip.status.as_ref()?.reply_packets)
    });
    each(Kind::Counter, "lbd_vip_reply_bytes_total", "Bytes of these packets' frames.", |vip| {
        Some(vip.status.as_ref()?.reply_bytes)
    });
    each(Kind::Counter, "lbd_vip_flows_total", "Flows begun.", |vip| {
        Some(vip.status.as_ref()?.flows)
    });
    let evicted = "Half-open flows that had to make room for others.";
    each(Kind::Counter, "lbd_vip_evicted_flows_total", evicted, |vip| {
        Some(vip.status.as_ref()?.evicted_flows)
    });
    let exhausted = "New flows for which none of the VIP's source addresses had a free port.";
    each(Kind::Counter, "lbd_vip_exhausted_flows_total", exhausted, |vip| {
        Some(vip.status.as_ref()?.exhausted_flows)
    });
}

fn backends(text: &mut Text, vips: &[Vip]) {
    let mut each = |kind: Kind, name: &str, help: &str, value: fn(&BackendStatus) -> u64| {
        text.family(kind, name, help);
        for vip in vips {
            for backend in vip.status.iter().flat_map(|status| &status.backends) {
                let at = std::net::SocketAddr::new(backend.address, backend.port);
                text.line(&[("vip", &vip.metadata.name), ("backend", &at)], value(backend));
            }
        }
    };
    let healthy = "Whether the backend is healthy; 0 also while no check has spoken.";
    each(Kind::Gauge, "lbd_backend_healthy", healthy, |backend| {
        (backend.health == Health::Healthy).into()
    });
    each(Kind::Counter, "lbd_backend_packets_total", "Packets sent to the backend.", |b| b.packets);
    let bytes = "Bytes of these packets' frames.";
    each(Kind::Counter, "lbd_backend_bytes_total", bytes, |b| b.bytes);
    let replies = "Packets from the backend to clients.";
    each(Kind::Counter, "lbd_backend_reply_packets_total", replies, |b| b.reply_packets);
    each(Kind::Counter, "lbd_backend_reply_bytes_total", bytes, |b| b.reply_bytes);
    each(
        Kind::Counter,
        "lbd_backend_exhausted_flows_total",
        "New flows for which no source port was free.",
        |b| b.exhausted_flows,
    );
    each(Kind::Counter, "lbd_backend_flows_total", "Flows begun to the backend.", |b| b.flows);
    each(
        Kind::Gauge,
        "lbd_backend_active_flows",
        "Open flows of the backend: those that bounds go by.",
        |b| b.active_flows,
    );
    each(
        Kind::Gauge,
        "lbd_backend_half_open_flows",
        "Half-open flows of the backend, which are not yet open and may be nobody's.",
        |b| b.half_open_flows,
    );
}

fn peers(text: &mut Text, peers: &[PeerView]) {
    let mut each = |kind: Kind, name: &str, help: &str, value: fn(&PeerView) -> u64| {
        text.family(kind, name, help);
        for peer in peers {
            let labels: &[(&str, &dyn Display)] =
                &[("peer", &peer.name), ("address", &peer.address), ("asn", &peer.asn)];
            text.line(labels, value(peer));
        }
    };
    each(Kind::Gauge, "lbd_bgp_session_established", "Whether the session is up.", |peer| {
        (peer.state == "Established").into()
    });
    let since = "Seconds since the session entered its state.";
    each(Kind::Gauge, "lbd_bgp_session_state_seconds", since, |peer| peer.since_secs);
    each(Kind::Gauge, "lbd_bgp_prefixes_received", "Prefixes accepted from it.", |peer| {
        peer.prefixes_received
    });
    each(Kind::Gauge, "lbd_bgp_prefixes_advertised", "Prefixes advertised to it.", |peer| {
        peer.prefixes_advertised
    });
    let kept = "Paths from it that import does not accept and that are kept to be shown.";
    each(Kind::Gauge, "lbd_bgp_prefixes_rejected", kept, |peer| peer.prefixes_rejected);
    let refused = "Routes from it that import did not accept.";
    each(Kind::Counter, "lbd_bgp_routes_refused_total", refused, |peer| peer.routes_refused);
    let not_kept = "Routes of those that were to be kept, for which there was no room.";
    each(Kind::Counter, "lbd_bgp_routes_refused_not_kept_total", not_kept, |peer| {
        peer.refused_not_kept
    });
    let malformed = "UPDATEs from it that were malformed or of no use.";
    each(Kind::Counter, "lbd_bgp_updates_malformed_total", malformed, |peer| peer.malformed);
    let mut by_type = |name: &str, help: &str, counts: fn(&PeerView) -> MessageCounts| {
        text.family(Kind::Counter, name, help);
        for peer in peers {
            for (kind, count) in counts(peer).by_type() {
                let labels: &[(&str, &dyn Display)] = &[
                    ("peer", &peer.name),
                    ("address", &peer.address),
                    ("asn", &peer.asn),
                    ("type", &kind),
                ];
                text.line(labels, count);
            }
        }
    };
    by_type("lbd_bgp_messages_received_total", "Messages received, by type.", |peer| peer.received);
    by_type("lbd_bgp_messages_sent_total", "Messages sent, by type.", |peer| peer.sent);
}

/// Neighbours that come by themselves.
fn listening(text: &mut Text, listening: &[ListenView]) {
    let mut each = |kind: Kind, name: &str, help: &str, value: fn(&ListenView) -> u64| {
        text.family(kind, name, help);
        for listen in listening {
            text.line(&[("group", &listen.group)], value(listen));
        }
    };
    let there = "Neighbours that came by themselves.";
    each(Kind::Gauge, "lbd_bgp_dynamic_neighbors", there, |it| it.neighbors.into());
    let limit = "How many there may be.";
    each(Kind::Gauge, "lbd_bgp_dynamic_neighbors_limit", limit, |it| it.limit.into());
    let refused = "Connections that were refused, as there were enough.";
    each(Kind::Counter, "lbd_bgp_dynamic_refused_total", refused, |it| it.refused);
    let wrong_as = "OPENs that were refused for an AS number that is not among those of the group.";
    each(Kind::Counter, "lbd_bgp_dynamic_wrong_as_total", wrong_as, |it| it.wrong_as);
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// The text, and the family that lines belong to.
#[derive(Default)]
struct Text(String, String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(Kind::Gauge, name, help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(Kind::Counter, name, help);
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.1 = name.into();
    }

    fn line(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(&self.1);
        for (place, (name, value)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let value = value.to_string();
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _infallible = write!(self.0, "{open}{name}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.0, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lb_api_types::vip::VipStatus;

    use super::*;
    use crate::registry::tests::vip;

    /// Another one, that the fast path is to be on and is not.
    fn lacking(interface: &Interface) -> Interface {
        let mut lacking = interface.clone();
        lacking.metadata.name = "eth1".into();
        lacking.status.reasons.clear();
        lacking.status.conditions = vec![Condition::new("Attached", false, "NotAttached", "")];
        lacking
    }

    fn sample() -> Sample {
        let mut web = vip("web", 10);
        web.status = Some(VipStatus {
            conditions: vec![],
            serving: true,
            advertised: false,
            message: String::new(),
            backends: vec![BackendStatus {
                address: [10, 0, 0, 1].into(),
                port: 8080,
                health: Health::Unknown,
                message: String::new(),
                packets: 5,
                bytes: 500,
                reply_packets: 6,
                reply_bytes: 600,
                flows: 2,
                active_flows: 1,
                half_open_flows: 9,
                exhausted_flows: 5,
            }],
            packets: 7,
            bytes: 700,
            reply_packets: 8,
            reply_bytes: 800,
            flows: 3,
            evicted_flows: 4,
            exhausted_flows: 5,
        });
        let reason = |name: &str, packets| ReasonView {
            reason: name.into(),
            verdict: "drop".into(),
            packets,
            bytes: packets * 60,
        };
        let peer = serde_json::json!({
            "name": "a\"b\\c\nd", "address": "192.0.2.1", "asn": 65001, "state": "Established", "since_secs": 9,
            "router_id": null, "hold_time_secs": 90, "prefixes_received": 4, "prefixes_advertised": 1,
            "messages_received": 11, "messages_sent": 12, "last_error": "", "routes_refused": 7,
            "malformed": 8,
            "received": {"open": 1, "update": 9, "notification": 0, "keepalive": 1, "route_refresh": 0}
        });
        let interface = serde_json::json!({
            "metadata": {"name": "eth0"}, "spec": {"attach": true, "hook": "auto"},
            "status": {
                "conditions": [], "index": 2, "mac": null, "mtu": 1500, "up": true, "hook": "xdp",
                "reasons": [reason("no-backend", 3)]
            }
        });
        let interface: Interface = serde_json::from_value(interface).unwrap();
        Sample {
            status: serde_json::from_value(serde_json::json!({
                "version": "1.2.3", "uptime_secs": 42, "router_id": "192.0.2.2", "asn": 65000,
                "interfaces": [{"name": "eth0", "index": 2, "hook": "xdp"}], "reasons": [], "warnings": ["x"]
            }))
            .unwrap(),
            reasons: vec![reason("bad-checksum", 0), reason("no-backend", 3)],
            interfaces: vec![lacking(&interface), interface],
            vips: vec![web],
            peers: vec![serde_json::from_value(peer).unwrap()],
            listening: vec![ListenView {
                group: "nodes".into(),
                ranges: Vec::new(),
                limit: 9,
                neighbors: 2,
                refused: 3,
                asns: Vec::new(),
                wrong_as: 6,
            }],
            watchers: 2,
            overruns: 1,
            failures: [
                ("unknown", 3),
                ("expired", 0),
                ("limited", 1),
                ("no_token", 2),
                ("user", 0),
                ("certificate", 0),
            ],
        }
    }

    #[test]
    fn what_is_counted_is_told_zeroes_included() {
        let text = render(&sample());
        for line in [
            "lbd_build_info{version=\"1.2.3\"} 1",
            "lbd_uptime_seconds 42",
            "lbd_early_fragments_total{became=\"expired\"} 0",
            "lbd_event_watchers 2",
            "lbd_logins_failed_total{reason=\"expired\"} 0",
            "lbd_event_watchers_cut_total{reason=\"overrun\"} 1",
            r#"lbd_bgp_dynamic_neighbors{group="nodes"} 2"#,
            r#"lbd_bgp_dynamic_refused_total{group="nodes"} 3"#,
            r#"lbd_bgp_dynamic_wrong_as_total{group="nodes"} 6"#,
            r#"lbd_bgp_messages_received_total{peer="a\"b\\c\nd",address="192.0.2.1",asn="65001",type="update"} 9"#,
            r#"lbd_bgp_messages_sent_total{peer="a\"b\\c\nd",address="192.0.2.1",asn="65001",type="route-refresh"} 0"#,
            r#"lbd_bgp_routes_refused_total{peer="a\"b\\c\nd",address="192.0.2.1",asn="65001"} 7"#,
            r#"lbd_bgp_updates_malformed_total{peer="a\"b\\c\nd",address="192.0.2.1",asn="65001"} 8"#,
            "lbd_interface_attached{interface=\"eth0\",hook=\"xdp\"} 1",
            "lbd_interface_attached{interface=\"eth1\",hook=\"none\"} 0",
            "lbd_packets_total{reason=\"bad-checksum\",verdict=\"drop\"} 0",
            "lbd_interface_packets_total{interface=\"eth0\",reason=\"no-backend\",verdict=\"drop\"} 3",
            "lbd_interface_packet_bytes_total{interface=\"eth0\",reason=\"no-backend\",verdict=\"drop\"} 180",
            "lbd_packet_bytes_total{reason=\"no-backend\",verdict=\"drop\"} 180",
            "lbd_vip_info{vip=\"web\",address=\"203.0.113.10\",port=\"80\",protocol=\"tcp\"} 1",
            "lbd_vip_advertised{vip=\"web\"} 0",
            "lbd_vip_flows_total{vip=\"web\"} 3",
            "lbd_backend_healthy{vip=\"web\",backend=\"10.0.0.1:8080\"} 0",
            "lbd_backend_flows_total{vip=\"web\",backend=\"10.0.0.1:8080\"} 2",
            "lbd_backend_active_flows{vip=\"web\",backend=\"10.0.0.1:8080\"} 1",
            "lbd_backend_half_open_flows{vip=\"web\",backend=\"10.0.0.1:8080\"} 9",
            "lbd_vip_evicted_flows_total{vip=\"web\"} 4",
            "lbd_vip_exhausted_flows_total{vip=\"web\"} 5",
            "lbd_vip_reply_packets_total{vip=\"web\"} 8",
            "lbd_vip_reply_bytes_total{vip=\"web\"} 800",
            "lbd_backend_bytes_total{vip=\"web\",backend=\"10.0.0.1:8080\"} 500",
            "lbd_backend_reply_packets_total{vip=\"web\",backend=\"10.0.0.1:8080\"} 6",
            "lbd_backend_reply_bytes_total{vip=\"web\",backend=\"10.0.0.1:8080\"} 600",
            "lbd_backend_exhausted_flows_total{vip=\"web\",backend=\"10.0.0.1:8080\"} 5",
            "lbd_bgp_session_established{peer=\"a\\\"b\\\\c\\nd\",address=\"192.0.2.1\",asn=\"65001\"} 1",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn each_family_is_told_once_with_its_type_before_its_lines() {
        let text = render(&sample());
        let (mut families, mut series, mut family) = (BTreeSet::new(), BTreeSet::new(), "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name), "{name} comes twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                family = name;
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next(), Some(family));
                assert!(series.insert(name), "{name} comes twice");
                value.parse::<u64>().unwrap();
            }
        }
        assert!(text.ends_with('\n'));
    }
}
