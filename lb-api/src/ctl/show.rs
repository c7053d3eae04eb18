//! `get` and `describe`.

use lb_api_types::config::Hook;
use lb_api_types::view::{Appliance, FibEntry, Flow, List, Status};
use lb_api_types::vip::{Health, Vip, VipStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::{Format, Kind};
use super::client::{Client, segment};
use super::describe::{protocol, yes_no};
use super::diff::wanted;
use super::table::{duration, or_dash, table};
use super::{CtlError, bgp, describe, resources, tokens};
use crate::resources::Selector;

/// Lists what there is, or what has a name.
pub(super) async fn get(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    selector: Option<&Selector>,
    limit: Option<u32>,
    format: Format,
) -> Result<String, CtlError> {
    let path = match (kind, name) {
        (Kind::Vips, Some(name)) => format!("vips/{}", segment(name)),
        (Kind::Vips, None) => "vips".into(),
        (Kind::Pools, None) => "pools".into(),
        (Kind::Pools, Some(name)) => format!("pools/{}", segment(name)),
        (Kind::HealthChecks, None) => "health-checks".into(),
        (Kind::HealthChecks, Some(name)) => format!("health-checks/{}", segment(name)),
        (Kind::Nodes, None) => "nodes".into(),
        (Kind::Nodes, Some(name)) => format!("nodes/{}", segment(name)),
        (Kind::Interfaces, None) => "interfaces".into(),
        (Kind::Interfaces, Some(name)) => format!("interfaces/{}", segment(name)),
        (Kind::Peers, _) => "bgp/peers".into(),
        (Kind::Sets, None) => "bgp/sets".into(),
        (Kind::Sets, Some(name)) => format!("bgp/sets/{}", segment(name)),
        (Kind::Policies, None) => "bgp/policies".into(),
        (Kind::Policies, Some(name)) => format!("bgp/policies/{}", segment(name)),
        (Kind::PeerGroups, None) => "bgp/peer-groups".into(),
        (Kind::PeerGroups, Some(name)) => format!("bgp/peer-groups/{}", segment(name)),
        (Kind::Addresses, None) => "addresses".into(),
        (Kind::Addresses, Some(name)) => format!("addresses/{}", segment(name)),
        (Kind::StaticRoutes, None) => "static-routes".into(),
        (Kind::StaticRoutes, Some(name)) => format!("static-routes/{}", segment(name)),
        (Kind::Routes, _) => "bgp/routes".into(),
        (Kind::Fib, _) => "fib".into(),
        (Kind::Flows, _) => "flows".into(),
        (Kind::Tokens, None) => "tokens".into(),
        (Kind::Tokens, Some(name)) => format!("tokens/{}", segment(name)),
        (Kind::Status, _) => "status".into(),
    };
    let labelled = kind == Kind::Vips || kind.resource().is_some();
    if selector.is_some() && !labelled {
        return Err(CtlError::Other("these have no labels: leave -l out".into()));
    }
    let limited = matches!(kind, Kind::Routes | Kind::Fib | Kind::Flows) || labelled;
    let limit = limit.filter(|_| limited && name.is_none()).map(|limit| format!("limit={limit}"));
    let labels = selector.map(|s| format!("labelSelector={}", segment(&s.to_string())));
    let query: Vec<_> = limit.into_iter().chain(labels).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
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
        Format::Name => Ok(names(kind, &value)),
        Format::Table | Format::Wide => {
            if truncated {
                eprintln!("there are more: say --limit");
            }
            columns(kind, value, format == Format::Wide)
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
        Format::Name => Ok(names(Kind::Vips, &value)),
        Format::Table | Format::Wide => Ok(describe::vip(&typed(value)?)),
    }
}

/// Everything made over REST, as apply takes it: what VIPs name before the VIPs.
pub(super) async fn export(client: &Client) -> Result<String, CtlError> {
    let (mut text, mut from_file) = (String::new(), 0);
    let others = resources::Kind::ALL.iter().map(|kind| (kind.path(), kind.name()));
    for (path, kind) in others.chain([("vips", "Vip")]) {
        let value = client.get(path).await?;
        for resource in value["items"].as_array().into_iter().flatten() {
            if resource.pointer("/metadata/revision").is_none() {
                from_file += 1;
                continue;
            }
            let document = yaml(&wanted(resource.clone()))?;
            text.push_str(&format!("---\nkind: {kind}\n{document}"));
        }
    }
    if from_file > 0 {
        eprintln!("left out: {from_file} resources of the configuration file, which is their home");
    }
    Ok(text)
}

/// What `-o name` writes.
fn names(kind: Kind, value: &Value) -> String {
    let word = match kind {
        Kind::Vips => "vip",
        Kind::Pools => "pool",
        Kind::HealthChecks => "health-check",
        Kind::Nodes => "node",
        Kind::Interfaces => "interface",
        Kind::Peers => "peer",
        Kind::Sets => "set",
        Kind::Policies => "policy",
        Kind::PeerGroups => "peer-group",
        Kind::Addresses => "address",
        Kind::StaticRoutes => "static-route",
        Kind::Routes => "route",
        Kind::Fib => "fib",
        Kind::Tokens => "token",
        Kind::Flows => "flow",
        Kind::Status => "status",
    };
    let all =
        value.get("items").and_then(Value::as_array).map_or(std::slice::from_ref(value), |a| a);
    let names = all.iter().filter_map(|v| v.pointer("/metadata/name")?.as_str());
    names.map(|name| format!("{word}/{name}\n")).collect()
}

fn is_named(kind: Kind, item: &Value, name: &str) -> bool {
    let fields: &[&str] = match kind {
        Kind::Vips
        | Kind::Pools
        | Kind::HealthChecks
        | Kind::Nodes
        | Kind::Sets
        | Kind::Policies
        | Kind::PeerGroups
        | Kind::Interfaces
        | Kind::Tokens
        | Kind::Addresses
        | Kind::StaticRoutes
        | Kind::Status => &[],
        Kind::Peers => &["/metadata/name", "/spec/address"],
        Kind::Routes => &["/metadata/name", "/spec/prefix"],
        Kind::Fib => &["/metadata/name"],
        Kind::Flows => {
            &["/metadata/name", "/status/service", "/spec/vip", "/spec/client", "/status/backend"]
        }
    };
    fields.iter().any(|field| item.pointer(field).is_some_and(|value| value == name))
}

fn singular(kind: Kind) -> &'static str {
    match kind {
        Kind::Vips => "VIP",
        Kind::Pools => "pool",
        Kind::HealthChecks => "health check",
        Kind::Nodes => "node",
        Kind::Interfaces => "interface",
        Kind::Sets => "set",
        Kind::Policies => "policy",
        Kind::PeerGroups => "peer group",
        Kind::Addresses => "address",
        Kind::StaticRoutes => "static route",
        Kind::Peers => "peer",
        Kind::Routes => "route",
        Kind::Fib => "FIB entry",
        Kind::Flows => "flow of",
        Kind::Tokens => "token",
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

pub(super) fn items<T: DeserializeOwned>(value: Value) -> Result<Vec<T>, CtlError> {
    Ok(typed::<List<T>>(value)?.items)
}

/// The items of a list, or the one that it is.
pub(super) fn all<T: DeserializeOwned>(value: Value) -> Result<Vec<T>, CtlError> {
    if value.get("items").is_some() { items(value) } else { Ok(vec![typed(value)?]) }
}

fn columns(kind: Kind, value: Value, wide: bool) -> Result<String, CtlError> {
    Ok(match kind {
        Kind::Vips => vips(&all(value)?, wide),
        Kind::Pools => resources::pools(&all(value)?, wide),
        Kind::HealthChecks => resources::health_checks(&all(value)?),
        Kind::Nodes => resources::nodes(&all(value)?),
        Kind::Interfaces => resources::interfaces(&all(value)?),
        Kind::Sets | Kind::Policies | Kind::PeerGroups => resources::named(&value),
        Kind::Addresses => resources::addresses(&all(value)?),
        Kind::StaticRoutes => resources::static_routes(&all(value)?),
        Kind::Peers => bgp::peers(&bgp::sessions(value)?, wide),
        Kind::Routes => bgp::routes(&items(value)?),
        Kind::Fib => fib(&items(value)?),
        Kind::Flows => flows(&items(value)?),
        Kind::Tokens => tokens::columns(&all(value)?),
        Kind::Status => status(&typed::<Appliance>(value)?.status),
    })
}

pub(super) fn vips(vips: &[Vip], wide: bool) -> String {
    let row = |vip: &Vip| {
        let spec = &vip.spec;
        let status = vip.status.as_ref();
        let healthy = status.map_or(0, |status| {
            status.backends.iter().filter(|backend| backend.health == Health::Healthy).count()
        });
        [
            vip.metadata.name.clone(),
            spec.address.to_string(),
            format!("{}/{}", spec.ports(), protocol(spec.protocol)),
            spec.algorithm.to_string(),
            format!("{healthy}/{}", spec.backends.len()),
            yes_no(status.is_some_and(|status| status.serving)).into(),
            yes_no(status.is_some_and(|status| status.advertised)).into(),
            status.map_or(0, |status| status.flows).to_string(),
        ]
    };
    const HEADING: [&str; 8] =
        ["NAME", "ADDRESS", "PORT", "ALGORITHM", "HEALTHY", "SERVING", "ADVERTISED", "FLOWS"];
    if !wide {
        return table(HEADING, &vips.iter().map(row).collect::<Vec<_>>());
    }
    let rows = vips.iter().map(|vip| {
        let [name, address, port, algorithm, healthy, serving, advertised, flows] = row(vip);
        let status = vip.status.as_ref();
        let count = |count: fn(&VipStatus) -> u64| status.map_or(0, count).to_string();
        [
            name,
            address,
            port,
            algorithm,
            healthy,
            serving,
            advertised,
            flows,
            count(|status| status.packets),
            count(|status| status.bytes),
            or_dash(vip.metadata.revision.map(|revision| revision.to_string())),
            status.map_or_else(String::new, |status| status.message.clone()),
        ]
    });
    let [name, address, port, algorithm, healthy, serving, advertised, flows] = HEADING;
    let heading = [
        name, address, port, algorithm, healthy, serving, advertised, flows, "PACKETS", "BYTES",
        "REVISION", "WHY",
    ];
    table(heading, &rows.collect::<Vec<_>>())
}

fn fib(entries: &[FibEntry]) -> String {
    let mut rows = Vec::new();
    for entry in entries {
        let (prefix, entry) = (entry.metadata.name.clone(), &entry.status);
        let action = entry.action.clone();
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

fn flows(flows: &[Flow]) -> String {
    let row = |Flow { spec, status, .. }: &Flow| {
        [
            spec.protocol.clone(),
            spec.client.clone(),
            spec.vip.clone(),
            status.backend.clone(),
            or_dash(status.service.clone()),
            duration(status.idle_secs),
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
