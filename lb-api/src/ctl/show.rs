//! `get` and `describe`.

use lb_api_types::config::Hook;
use lb_api_types::view::{BgpRouteView, FibView, FlowView, List, PeerView, Status};
use lb_api_types::vip::{Health, Vip};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Client, segment};
use super::describe::{algorithm, protocol, yes_no};
use super::table::{duration, or_dash, table};
use super::{CtlError, Format, Kind, describe};

/// Lists what there is, or what has a name.
pub(super) async fn get(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    limit: Option<u32>,
    format: Format,
) -> Result<String, CtlError> {
    let path = match (kind, name) {
        (Kind::Vips, Some(name)) => format!("vips/{}", segment(name)),
        (Kind::Vips, None) => "vips".into(),
        (Kind::Peers, _) => "bgp/peers".into(),
        (Kind::Routes, _) => "bgp/routes".into(),
        (Kind::Fib, _) => "fib".into(),
        (Kind::Flows, _) => "flows".into(),
        (Kind::Status, _) => "status".into(),
    };
    let limited = matches!(kind, Kind::Routes | Kind::Fib | Kind::Flows);
    let query = limit.filter(|_| limited).map_or(String::new(), |limit| format!("?limit={limit}"));
    let mut value = client.get(&format!("{path}{query}")).await?;
    if let (Some(name), Some(items)) = (name, value.get_mut("items").and_then(Value::as_array_mut))
    {
        items.retain(|item| is_named(kind, item, name));
        if items.is_empty() {
            return Err(CtlError::Other(format!("there is no {} {name}", singular(kind))));
        }
    }
    let truncated = value["truncated"] == Value::Bool(true);
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table => {
            if truncated {
                eprintln!("there are more: say --limit");
            }
            columns(kind, value)
        }
    }
}

/// Shows one VIP.
pub(super) async fn describe(
    client: &Client,
    name: &str,
    format: Format,
) -> Result<String, CtlError> {
    let value = client.get(&format!("vips/{}", segment(name))).await?;
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Table => Ok(describe::vip(&typed(value)?)),
    }
}

fn is_named(kind: Kind, item: &Value, name: &str) -> bool {
    let fields: &[&str] = match kind {
        Kind::Vips | Kind::Status => &[],
        Kind::Peers => &["name", "address"],
        Kind::Routes | Kind::Fib => &["prefix"],
        Kind::Flows => &["service", "vip", "client", "backend"],
    };
    fields.iter().any(|field| item[*field] == name)
}

fn singular(kind: Kind) -> &'static str {
    match kind {
        Kind::Vips => "VIP",
        Kind::Peers => "peer",
        Kind::Routes => "route",
        Kind::Fib => "FIB entry",
        Kind::Flows => "flow of",
        Kind::Status => "status",
    }
}

pub(super) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn yaml(value: &Value) -> Result<String, CtlError> {
    serde_norway::to_string(value).map_err(|error| CtlError::Other(error.to_string()))
}

pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, CtlError> {
    serde_json::from_value(value).map_err(|error| {
        CtlError::Other(format!("lbd answers in a form that this lbctl does not know ({error}): use the lbctl of its version"))
    })
}

fn items<T: DeserializeOwned>(value: Value) -> Result<Vec<T>, CtlError> {
    Ok(typed::<List<T>>(value)?.items)
}

fn columns(kind: Kind, value: Value) -> Result<String, CtlError> {
    Ok(match kind {
        Kind::Vips if value.get("items").is_some() => vips(&items(value)?),
        Kind::Vips => vips(&[typed(value)?]),
        Kind::Peers => peers(&items(value)?),
        Kind::Routes => routes(&items(value)?),
        Kind::Fib => fib(&items(value)?),
        Kind::Flows => flows(&items(value)?),
        Kind::Status => status(&typed(value)?),
    })
}

fn vips(vips: &[Vip]) -> String {
    let row = |vip: &Vip| {
        let spec = &vip.spec;
        let status = vip.status.as_ref();
        let healthy = status.map_or(0, |status| {
            status.backends.iter().filter(|backend| backend.health == Health::Healthy).count()
        });
        [
            vip.metadata.name.clone(),
            spec.address.to_string(),
            format!("{}/{}", spec.port, protocol(spec.protocol)),
            algorithm(spec.algorithm).into(),
            format!("{healthy}/{}", spec.backends.len()),
            yes_no(status.is_some_and(|status| status.serving)).into(),
            yes_no(status.is_some_and(|status| status.advertised)).into(),
            status.map_or(0, |status| status.flows).to_string(),
        ]
    };
    let rows: Vec<_> = vips.iter().map(row).collect();
    table(
        ["NAME", "ADDRESS", "PORT", "ALGORITHM", "HEALTHY", "SERVING", "ADVERTISED", "FLOWS"],
        &rows,
    )
}

fn peers(peers: &[PeerView]) -> String {
    let row = |peer: &PeerView| {
        [
            peer.name.clone(),
            peer.address.to_string(),
            peer.asn.to_string(),
            peer.state.clone(),
            duration(peer.since_secs),
            peer.prefixes_received.to_string(),
            peer.prefixes_advertised.to_string(),
            peer.last_error.clone(),
        ]
    };
    let rows: Vec<_> = peers.iter().map(row).collect();
    table(
        ["NAME", "ADDRESS", "AS", "STATE", "SINCE", "RECEIVED", "ADVERTISED", "LAST ERROR"],
        &rows,
    )
}

fn routes(routes: &[BgpRouteView]) -> String {
    let row = |route: &BgpRouteView| {
        let mark = match (route.best, route.multipath) {
            (true, _) => "*>",
            (false, true) => "*=",
            (false, false) => "*",
        };
        [
            mark.into(),
            route.prefix.to_string(),
            or_dash(route.next_hop.map(|hop| hop.to_string())),
            or_dash(route.peer.map(|peer| peer.to_string())),
            or_dash(route.local_pref.map(|value| value.to_string())),
            or_dash(route.med.map(|value| value.to_string())),
            route.origin.clone(),
            route.as_path.clone(),
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    table(["", "PREFIX", "NEXT HOP", "PEER", "LOCAL PREF", "MED", "ORIGIN", "AS PATH"], &rows)
}

fn fib(entries: &[FibView]) -> String {
    let mut rows = Vec::new();
    for entry in entries {
        let (prefix, action) = (entry.prefix.to_string(), entry.action.clone());
        if entry.members.is_empty() {
            let dash = || "-".to_owned();
            rows.push([prefix, action, entry.source.clone(), dash(), dash(), dash()]);
            continue;
        }
        for (place, member) in entry.members.iter().enumerate() {
            // Further members of the same route stand below the first.
            let first = |text: &str| if place == 0 { text.to_owned() } else { String::new() };
            rows.push([
                first(&prefix),
                first(&action),
                first(&entry.source),
                or_dash(member.gateway.map(|gateway| gateway.to_string())),
                member.interface.clone(),
                or_dash(member.mac.clone()),
            ]);
        }
    }
    table(["PREFIX", "ACTION", "SOURCE", "GATEWAY", "INTERFACE", "MAC"], &rows)
}

fn flows(flows: &[FlowView]) -> String {
    let row = |flow: &FlowView| {
        [
            flow.protocol.clone(),
            flow.client.clone(),
            flow.vip.clone(),
            flow.backend.clone(),
            or_dash(flow.service.clone()),
            duration(flow.idle_secs),
        ]
    };
    let rows: Vec<_> = flows.iter().map(row).collect();
    table(["PROTOCOL", "CLIENT", "VIP", "BACKEND", "SERVICE", "IDLE"], &rows)
}

fn status(status: &Status) -> String {
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|interface| {
            let hook = match interface.hook {
                Hook::Auto => "auto",
                Hook::Xdp => "xdp",
                Hook::Tc => "tc",
            };
            format!("{} ({hook})", interface.name)
        })
        .collect();
    let mut text = format!(
        "lbd {}, up {}, AS {}, router id {}\nInterfaces: {}\n",
        status.version,
        duration(status.uptime_secs),
        status.asn,
        status.router_id,
        or_dash(Some(interfaces.join(", "))),
    );
    for warning in &status.warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    let row = |count: &lb_api_types::view::ReasonView| {
        [
            count.reason.clone(),
            count.verdict.clone(),
            count.packets.to_string(),
            count.bytes.to_string(),
        ]
    };
    let rows: Vec<_> = status.reasons.iter().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(["REASON", "VERDICT", "PACKETS", "BYTES"], &rows));
    }
    text
}
