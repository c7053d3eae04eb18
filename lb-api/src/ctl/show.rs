//! `get` and `describe`.

use lb_api_types::config::Hook;
use lb_api_types::view::{Appliance, FibEntry, Flow, List, Status};
use lb_api_types::vip::{Health, Vip, VipStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::apply::path_of;
use super::arguments::{Format, Home, Kind};
use super::client::{Client, segment};
use super::describe::yes_no;
use super::table::{Widths, duration, or_dash, table, table_below};
use super::{CtlError, bgp, describe, resources, tokens};
use crate::resources::Selector;

/// What of a list is asked for; all of it by default.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) selector: Option<Selector>,
    pub(super) limit: Option<u32>,
    /// What flows are to have, NAME=VALUE.
    pub(super) filter: Vec<String>,
}

/// Lists what there is, or what has a name.
pub(super) async fn get(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    part: &Part,
    format: Format,
) -> Result<String, CtlError> {
    let kept = matches!(kind.home(), Home::Kept(of) if of.is_none_or(|of| of.only().is_none()));
    if part.selector.is_some() && !kept {
        let noun = kind.noun();
        return Err(CtlError::Other(format!("the kind {noun} has no labels: leave -l out")));
    }
    let limited = kept || matches!(kind, Kind::Routes | Kind::Fib | Kind::Flows);
    let limit = part.limit.filter(|_| limited && name.is_none());
    let labels =
        part.selector.as_ref().map(|s| format!("labelSelector={}", segment(&s.to_string())));
    if !part.filter.is_empty() && kind != Kind::Flows {
        return Err(CtlError::Other("--filter is for flows: leave it out, or use -l".into()));
    }
    let filters = part.filter.iter().map(|filter| {
        let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
        format!("{}={}", segment(name), segment(value))
    });
    let query: Vec<_> = labels.into_iter().chain(filters).collect();
    // A page of few may have none of those that are asked for.
    let limit = limit.or((!part.filter.is_empty()).then_some(PAGE));
    let value = fetch(client, kind, name, query, limit).await?;
    match format {
        Format::Json => Ok(json(&value)),
        Format::Yaml => yaml(&value),
        Format::Name => Ok(names(kind, &value)),
        Format::Table | Format::Wide => {
            if value["truncated"] == Value::Bool(true) {
                eprintln!("there are more: say --limit");
            }
            columns(kind, value, format == Format::Wide)
        }
    }
}

/// The one with a name, or a list.
async fn fetch(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
    query: Vec<String>,
    limit: Option<u32>,
) -> Result<Value, CtlError> {
    if kind == Kind::Events {
        return Err(no_event());
    }
    let searched = matches!(kind, Kind::Peers | Kind::Routes | Kind::Fib | Kind::Flows);
    let path = match (searched, kind.home(), name) {
        (false, _, Some(name)) => path_to(kind, name)?,
        (false, Home::Backends, None) => {
            return Err(CtlError::Usage("say of which VIP: lbctl get backends VIP".into()));
        }
        (_, Home::Kept(of), _) => of.map_or("vips", resources::Kind::path).into(),
        (_, Home::Seen(path), _) => path.into(),
        (_, Home::Tokens | Home::Backends, _) => "tokens".into(),
    };
    match name.filter(|_| searched) {
        None => pages(client, &path, query, limit).await,
        Some(name) => search(client, kind, &path, name).await,
    }
}

/// Items of a page.
const PAGE: u32 = 10_000;

/// A list up to a limit, of as many pages as that takes, or its first page.
pub(super) async fn pages(
    client: &Client,
    path: &str,
    query: Vec<String>,
    limit: Option<u32>,
) -> Result<Value, CtlError> {
    let (mut before, mut left, mut cursor) = (Vec::new(), limit, None);
    loop {
        let limit = left.map(|left| format!("limit={}", left.min(PAGE)));
        let asked: Vec<_> = query.iter().cloned().chain(limit).chain(cursor.take()).collect();
        let query = if asked.is_empty() { String::new() } else { format!("?{}", asked.join("&")) };
        let mut page = client.get(&format!("{path}{query}")).await?;
        let Some(Value::Array(items)) = page.get_mut("items") else { return Ok(page) };
        left = left.map(|left| left.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX)));
        before.append(items);
        match page.get("next").and_then(Value::as_str) {
            Some(next) if left.is_some_and(|left| left > 0) => {
                cursor = Some(format!("cursor={}", segment(next)));
            }
            Some(_) | None => {
                page["items"] = Value::Array(before);
                return Ok(page);
            }
        }
    }
}

/// Those of a list that have a name. Long lists are read in pages from where it may stand.
async fn search(client: &Client, kind: Kind, path: &str, name: &str) -> Result<Value, CtlError> {
    let mut found = Vec::new();
    let mut query = before(kind, name);
    loop {
        let page: List<Value> = typed(client.get(&format!("{path}{query}")).await?)?;
        found.extend(page.items.into_iter().filter(|item| is_named(kind, item, name)));
        match page.next {
            // Elsewhere all of them stand on one page.
            Some(next) if kind == Kind::Flows => query = format!("?cursor={}", segment(&next)),
            Some(_) | None => break,
        }
    }
    match found.is_empty() {
        true => Err(CtlError::Other(format!("there is no {} {name}", kind.noun()))),
        false => Ok(serde_json::json!({"items": found})),
    }
}

/// Asks for the page that begins right before a prefix, of lists that are sorted by them.
fn before(kind: Kind, name: &str) -> String {
    const AT_ONCE: usize = 1000;
    const LAST: &str = "@ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let peer = match kind.home() {
        Home::Seen("fib") => "",
        Home::Seen("bgp/routes") => LAST,
        Home::Seen(_) | Home::Kept(_) | Home::Backends | Home::Tokens => return String::new(),
    };
    let prefix = name.split_once('@').map_or(name, |(prefix, _)| prefix);
    let prefix = prefix.parse::<ipnetwork::IpNetwork>().ok();
    let cursor = prefix.and_then(|prefix| {
        let shorter = prefix.prefix().checked_sub(1)?;
        Some(format!("&cursor={}", segment(&format!("{}/{shorter}{peer}", prefix.ip()))))
    });
    format!("?limit={AT_ONCE}{}", cursor.unwrap_or_default())
}

/// Where REST has the one with a name.
pub(super) fn path_to(kind: Kind, name: &str) -> Result<String, CtlError> {
    Ok(match kind.home() {
        Home::Kept(of) => path_of(of, name, false),
        Home::Tokens => format!("tokens/{}", segment(name)),
        Home::Backends => match name.split_once('/') {
            Some((vip, backend)) => format!("vips/{}/backends/{}", segment(vip), segment(backend)),
            None => format!("vips/{}/backends", segment(name)),
        },
        Home::Seen(path) if kind.only().is_some() => path.into(),
        Home::Seen(path) => format!("{path}/{}", segment(name)),
    })
}

/// Shows one with everything that is known of it.
pub(super) async fn describe(
    client: &Client,
    kind: Kind,
    name: &str,
    format: Format,
) -> Result<String, CtlError> {
    let value = fetch(client, kind, Some(name), Vec::new(), None).await?;
    match (format, kind) {
        (Format::Json, _) => Ok(json(&value)),
        (Format::Yaml, _) => yaml(&value),
        (Format::Name, _) => Ok(names(kind, &value)),
        (Format::Table | Format::Wide, Kind::Vips) => Ok(describe::vip(&typed(value)?)),
        (Format::Table | Format::Wide, Kind::Status) => columns(kind, value, true),
        (Format::Table | Format::Wide, Kind::Peers) => bgp::neighbour_pages(value),
        (Format::Table | Format::Wide, _) => {
            let all: Vec<Value> = all(value)?;
            let pages = all.iter().map(resources::page).collect::<Result<Vec<_>, _>>()?;
            Ok(pages.join("---\n"))
        }
    }
}

/// What is said where one event is asked for.
fn no_event() -> CtlError {
    CtlError::Usage("events are told in a row, none by its name: lbctl get events".into())
}

/// What `-o name` writes.
fn names(kind: Kind, value: &Value) -> String {
    let noun = kind.noun();
    let all =
        value.get("items").and_then(Value::as_array).map_or(std::slice::from_ref(value), |a| a);
    let names = all.iter().filter_map(|v| v.pointer("/metadata/name")?.as_str());
    names.map(|name| format!("{noun}/{name}\n")).collect()
}

fn is_named(kind: Kind, item: &Value, name: &str) -> bool {
    let also: &[&str] = match kind.home() {
        Home::Kept(_) => &["/spec/address"],
        Home::Seen("bgp/routes") => &["/spec/prefix"],
        Home::Seen("flows") => &["/status/service", "/spec/vip", "/spec/client", "/status/backend"],
        Home::Seen(_) | Home::Backends | Home::Tokens => &[],
    };
    let mut fields = also.iter().chain(&["/metadata/name"]);
    fields.any(|field| item.pointer(field).is_some_and(|value| value == name))
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
        Kind::Vips => vips(&all(value)?, wide, &mut Widths::default()),
        Kind::Backends => resources::backends(&all(value)?),
        Kind::Pools => resources::pools(&all(value)?, wide),
        Kind::HealthChecks => resources::health_checks(&all(value)?),
        Kind::Nodes => resources::nodes(&all(value)?),
        Kind::Interfaces => resources::interfaces(&all(value)?),
        Kind::BgpGlobal => resources::bgp_global(&all(value)?),
        Kind::Sets | Kind::Policies | Kind::PeerGroups => resources::named(&value),
        Kind::Addresses => resources::addresses(&all(value)?),
        Kind::StaticRoutes => resources::static_routes(&all(value)?),
        Kind::Peers => bgp::peers(&bgp::sessions(value)?, wide),
        Kind::Routes => bgp::routes(&all(value)?, wide),
        Kind::Fib => fib(&all(value)?),
        Kind::Flows => flows(&all(value)?),
        Kind::Tokens => tokens::columns(&all(value)?),
        Kind::Status => status(&typed::<Appliance>(value)?.status),
        Kind::Config => super::config::running(&typed(value)?),
        Kind::Version => resources::version(&typed(value)?),
        Kind::Events => return Err(no_event()),
    })
}

/// A line for each VIP, below others where there are some.
pub(super) fn vips(vips: &[Vip], wide: bool, above: &mut Widths) -> String {
    let row = |vip: &Vip| {
        let spec = &vip.spec;
        let status = vip.status.as_ref();
        let healthy = status.map_or(0, |status| {
            status.backends.iter().filter(|backend| backend.health == Health::Healthy).count()
        });
        [
            vip.metadata.name.clone(),
            spec.address.to_string(),
            format!("{}/{}", spec.ports(), spec.protocol.name()),
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
        return table_below(above, HEADING, &vips.iter().map(row).collect::<Vec<_>>());
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
    table_below(above, heading, &rows.collect::<Vec<_>>())
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
            status.state.clone(),
            duration(status.idle_secs),
        ]
    };
    let rows: Vec<_> = flows.iter().map(row).collect();
    table(["PROTOCOL", "CLIENT", "VIP", "BACKEND", "SERVICE", "STATE", "IDLE"], &rows)
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
