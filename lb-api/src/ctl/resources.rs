//! Resources beside VIPs, as people see them.

use std::fmt::Write;

use lb_api_types::bgp::{Global, GlobalStatus};
use lb_api_types::config::Hook;
use lb_api_types::resource::{
    BackendResource, Condition, ConditionStatus, NamedHealthCheck, Node, Pool,
};
use lb_api_types::route::{Address, NextHop, RouteKind, RouteStatus, StaticRoute};
use lb_api_types::view::{Interface, Version};
use lb_api_types::vip::HealthCheckKind;
use serde_json::Value;

use super::CtlError;
use super::describe::{health, yes_no};
use super::diff::wanted;
use super::show::{typed, yaml};
use super::table::{or_dash, table};
pub(super) use crate::resources::Kind;

/// What is asked for as a document has it, then what holds.
pub(super) fn page(value: &Value) -> Result<String, CtlError> {
    let mut text = yaml(&wanted(value.clone()))?;
    let Some(Value::Object(mut status)) = value.get("status").cloned() else { return Ok(text) };
    let conditions = status.remove("conditions").unwrap_or_else(|| Value::Array(Vec::new()));
    if !status.is_empty() {
        text.push_str(&yaml(&serde_json::json!({"status": status}))?);
    }
    let conditions: Vec<Condition> = typed(conditions)?;
    for Condition { kind, status, reason, message } in conditions {
        let _infallible = writeln!(text, "{kind}: {status:?} ({reason}): {message}");
    }
    Ok(text)
}

/// A line for each pool.
pub(super) fn pools(pools: &[Pool], wide: bool) -> String {
    const MOST: usize = 2;
    let row = |pool: &Pool| {
        let status = pool.status.as_ref();
        let most = if wide { usize::MAX } else { MOST };
        let all = &pool.spec.addresses;
        let mut addresses = all.iter().take(most).cloned().collect::<Vec<_>>().join(",");
        if all.len() > most {
            let _infallible = write!(addresses, " and {} more", all.len() - most);
        }
        [
            pool.metadata.name.clone(),
            addresses,
            status.map_or(0, |status| status.size).to_string(),
            status.map_or(0, |status| status.free).to_string(),
        ]
    };
    table(["NAME", "ADDRESSES", "SIZE", "FREE"], &pools.iter().map(row).collect::<Vec<_>>())
}

/// A line for each health check.
pub(super) fn health_checks(checks: &[NamedHealthCheck]) -> String {
    let row = |check: &NamedHealthCheck| {
        let spec = check.spec;
        let kind = match spec.kind {
            HealthCheckKind::Tcp => "tcp",
            HealthCheckKind::None => "none",
        };
        [
            check.metadata.name.clone(),
            kind.into(),
            format!("{} ms", spec.interval_ms),
            format!("{} ms", spec.timeout_ms),
            spec.rise.to_string(),
            spec.fall.to_string(),
            check.status.as_ref().map_or(0, |status| status.vips.len()).to_string(),
        ]
    };
    let heading = ["NAME", "KIND", "INTERVAL", "TIMEOUT", "RISE", "FALL", "VIPS"];
    table(heading, &checks.iter().map(row).collect::<Vec<_>>())
}

/// A line for each node.
pub(super) fn nodes(nodes: &[Node]) -> String {
    let row = |node: &Node| {
        let why = node.status.iter().flat_map(|status| &status.conditions);
        let why = why.map(|condition| condition.message.clone()).next().unwrap_or_default();
        [node.metadata.name.clone(), yes_no(node.spec.drain).into(), or_dash(Some(why))]
    };
    table(["NAME", "DRAINED", "WHY"], &nodes.iter().map(row).collect::<Vec<_>>())
}

/// A line for each address of an interface.
pub(super) fn addresses(addresses: &[Address]) -> String {
    let row = |address: &Address| {
        let spec = &address.spec;
        let (present, why) = holds(address.status.as_ref(), "Present");
        [
            address.metadata.name.clone(),
            spec.interface.clone(),
            spec.address.to_string(),
            present,
            or_dash(Some(why)),
        ]
    };
    let rows: Vec<_> = addresses.iter().map(row).collect();
    table(["NAME", "INTERFACE", "ADDRESS", "PRESENT", "WHY"], &rows)
}

/// A line for each static route.
pub(super) fn static_routes(routes: &[StaticRoute]) -> String {
    let hop = |hop: &NextHop| {
        let to = hop.address.map(|address| address.to_string());
        let on = hop.interface.as_ref().map(|name| format!("dev {name}"));
        to.into_iter().chain(on).collect::<Vec<_>>().join(" ")
    };
    let row = |route: &StaticRoute| {
        let spec = &route.spec;
        let to = match spec.kind {
            RouteKind::Unicast => spec.next_hops.iter().map(hop).collect::<Vec<_>>().join(", "),
            RouteKind::Blackhole => "blackhole".into(),
            RouteKind::Unreachable => "unreachable".into(),
            RouteKind::Prohibit => "prohibit".into(),
        };
        let (installed, not_installed) = holds(route.status.as_ref(), "Installed");
        let (used, why) = holds(route.status.as_ref(), "Used");
        let (_, unreachable) = holds(route.status.as_ref(), "Reachable");
        let why = [unreachable, not_installed, why].into_iter().find(|why| !why.is_empty());
        [
            route.metadata.name.clone(),
            spec.prefix.to_string(),
            to,
            spec.metric.to_string(),
            installed,
            used,
            or_dash(why),
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    table(["NAME", "PREFIX", "TO", "METRIC", "INSTALLED", "USED", "WHY"], &rows)
}

/// Whether a condition holds, and why not.
fn holds(status: Option<&RouteStatus>, kind: &str) -> (String, String) {
    let all = status.iter().flat_map(|status| &status.conditions);
    let Some(found) = all.into_iter().find(|it| it.kind == kind) else {
        return ("-".into(), String::new());
    };
    let holds = found.status == ConditionStatus::True;
    (yes_no(holds).into(), if holds { String::new() } else { found.message.clone() })
}

/// A line for each backend.
pub(super) fn backends(backends: &[BackendResource]) -> String {
    let row = |backend: &BackendResource| {
        let (spec, status) = (&backend.spec, backend.status.as_ref().map(|status| &status.found));
        let state = match (spec.disabled, spec.drain) {
            (true, _) => "disabled",
            (false, true) => "drained",
            (false, false) => "in use",
        };
        [
            backend.metadata.name.clone(),
            spec.weight.to_string(),
            state.into(),
            or_dash(status.map(|status| health(status.health).to_owned())),
            status.map_or(0, |status| status.active_flows).to_string(),
            or_dash(status.map(|status| status.message.clone())),
        ]
    };
    let heading = ["NAME", "WEIGHT", "STATE", "HEALTH", "ACTIVE", "LAST ERROR"];
    table(heading, &backends.iter().map(row).collect::<Vec<_>>())
}

/// A line for what BGP has in common for all neighbours.
pub(super) fn bgp_global(all: &[Global]) -> String {
    let row = |global: &Global| {
        let status = global.status.as_ref();
        let of = |value: fn(&GlobalStatus) -> String| or_dash(status.map(value));
        [
            of(|status| status.asn.to_string()),
            of(|status| status.router_id.to_string()),
            of(|status| status.cluster_id.to_string()),
            of(|status| status.decision.max_paths.to_string()),
            of(|status| status.listen.to_string()),
            of(|status| format!("{}/{}", status.established, status.peers)),
        ]
    };
    let heading = ["AS", "ROUTER ID", "CLUSTER", "PATHS", "LISTEN", "ESTABLISHED"];
    table(heading, &all.iter().map(row).collect::<Vec<_>>())
}

/// A line for the daemon's version.
pub(super) fn version(version: &Version) -> String {
    let status = &version.status;
    let why = status.conditions.iter().find(|it| it.status != ConditionStatus::True);
    let why = or_dash(why.map(|condition| condition.message.clone()));
    table(["VERSION", "API", "WARNING"], &[[status.version.clone(), status.api.clone(), why]])
}

/// A line for each interface.
pub(super) fn interfaces(interfaces: &[Interface]) -> String {
    let row = |interface: &Interface| {
        let status = &interface.status;
        let hook = status.hook.map(|hook| match hook {
            Hook::Xdp => "xdp".to_owned(),
            Hook::Tc | Hook::Auto => "tc".to_owned(),
        });
        let packets = |verdict: Option<&str>| {
            let counts = status.reasons.iter();
            let counts = counts.filter(|c| verdict.is_none_or(|verdict| c.verdict == verdict));
            counts.map(|count| count.packets).sum::<u64>().to_string()
        };
        [
            interface.metadata.name.clone(),
            status.index.to_string(),
            yes_no(status.up).into(),
            or_dash(hook),
            status.mtu.to_string(),
            or_dash(status.mac.clone()),
            packets(None),
            packets(Some("drop")),
            packets(Some("pass")),
        ]
    };
    let heading =
        ["NAME", "INDEX", "UP", "ATTACHED", "MTU", "MAC", "PACKETS", "DROPPED", "TO KERNEL"];
    table(heading, &interfaces.iter().map(row).collect::<Vec<_>>())
}

/// A line for each of those that others name.
pub(super) fn named(value: &Value) -> String {
    let one = std::slice::from_ref(value);
    let items = value.get("items").and_then(Value::as_array).map_or(one, Vec::as_slice);
    let text = |item: &Value, pointer| {
        item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let row = |item: &Value| {
        let spec = item["spec"].as_object().into_iter().flatten();
        let says = spec.map(|(field, value)| match value.as_array() {
            Some(members) => format!("{} {field}", members.len()),
            None => format!("{field}={}", value.as_str().map_or(value.to_string(), str::to_owned)),
        });
        let by = item.pointer("/status/by").and_then(Value::as_array).into_iter().flatten();
        let by: Vec<_> = by.filter_map(Value::as_str).collect();
        [
            text(item, "/metadata/name"),
            says.collect::<Vec<_>>().join(", "),
            or_dash(Some(by.join(", "))),
        ]
    };
    table(["NAME", "SAYS", "NAMED BY"], &items.iter().map(row).collect::<Vec<_>>())
}
