//! `fib lookup`, `doctor fib` and `doctor services`.

use std::fmt::Write;

use lb_api_types::view::{FibAuditView, FibLookupView, FibMemberView, ServiceAuditView};
use serde_json::Value;

use super::arguments::{Examined, Format, LookedUp};
use super::client::Client;
use super::show::{json, typed, yaml};
use super::{Answer, CtlError};

/// Shows what a packet meets; the answer is no where eBPF, router and kernel do not agree.
pub(super) async fn lookup(
    client: &Client,
    packet: &LookedUp,
    format: Format,
) -> Result<Answer, CtlError> {
    let LookedUp { destination, source, protocol, source_port, port } = packet;
    let mut path = format!(
        "fib/lookup?destination={destination}&protocol={protocol}&sourcePort={source_port}&destinationPort={port}"
    );
    if let Some(source) = source {
        let _infallible = write!(path, "&source={source}");
    }
    let value = client.get(&path).await?;
    let view: FibLookupView = typed(value.clone())?;
    let text = written(&value, format, || lookup_page(&view))?;
    Ok(if view.disagreements.is_empty() { Answer::Yes(text) } else { Answer::No(text) })
}

/// Shows an audit; the answer is no where something differs.
pub(super) async fn audit(
    client: &Client,
    what: Examined,
    repair: bool,
    format: Format,
) -> Result<Answer, CtlError> {
    let kind = match what {
        Examined::Fib => "fib",
        Examined::Services => "services",
    };
    let value = if repair {
        client.post(&format!("{kind}/repair"), &Value::Null).await?
    } else {
        client.get(&format!("{kind}/audit")).await?
    };
    let (is_intact, page) = match what {
        Examined::Fib => {
            let view: FibAuditView = typed(value.clone())?;
            (view.intact, audit_page(&view))
        }
        Examined::Services => {
            let view: ServiceAuditView = typed(value.clone())?;
            (view.intact, services_page(&view))
        }
    };
    let text = written(&value, format, || page.clone())?;
    Ok(if is_intact { Answer::Yes(text) } else { Answer::No(text) })
}

fn written(value: &Value, format: Format, page: impl Fn() -> String) -> Result<String, CtlError> {
    match format {
        Format::Json => Ok(json(value)),
        Format::Yaml => yaml(value),
        Format::Table | Format::Wide | Format::Name => Ok(page()),
    }
}

fn lookup_page(view: &FibLookupView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "{name:<12} {value}");
    };
    let entry = view.prefix.map(|prefix| format!("{prefix} {}", view.action));
    line("entry", &entry.unwrap_or_else(|| "no route".into()));
    if let Some(group) = view.group {
        line("group", &format!("{group}, members: {}", view.members.len()));
    }
    for way in &view.members {
        line("member", &member(way));
    }
    if let Some(chosen) = &view.chosen {
        line("this flow", &member(chosen));
    }
    line(
        "router",
        &view.router.as_ref().map_or("no route".into(), |told| {
            format!("{} {} (from {})", told.prefix, told.action, told.source)
        }),
    );
    let kernel = &view.kernel;
    line(
        "kernel",
        &match (&kernel.prefix, &kernel.refuses) {
            (Some(prefix), _) if kernel.next_hops.is_empty() => format!("{prefix}, its own"),
            (Some(prefix), _) => format!("{prefix} {}", kernel.next_hops.join(", ")),
            (None, why) => why.clone().unwrap_or_default(),
        },
    );
    if view.disagreements.is_empty() {
        line("agreement", "eBPF, router and kernel agree");
    }
    for disagreement in &view.disagreements {
        line("DIFFERS", disagreement);
    }
    text
}

fn member(way: &FibMemberView) -> String {
    let mac = way.mac.as_deref().unwrap_or("not resolved yet");
    match way.gateway {
        Some(gateway) => format!("via {gateway} dev {} mac {mac}", way.interface),
        None => format!("dev {} mac {mac}", way.interface),
    }
}

fn audit_page(view: &FibAuditView) -> String {
    let mut text = String::new();
    for finding in &view.findings {
        let _infallible = writeln!(text, "differs  {finding}");
    }
    let FibAuditView { routes, groups, kernel_routes, .. } = view;
    let _infallible = writeln!(
        text,
        "compared {routes} routes and {groups} groups address by address, with what BGP selected, and with the kernel's {kernel_routes}"
    );
    let counts = [
        ("stretches of addresses with another way than their route", view.wrong_stretches),
        ("groups not as written", view.wrong_groups),
        ("sets of shortcuts not as the trie has them", view.wrong_shortcuts),
        ("routes not as BGP selected them", view.not_as_selected),
        ("routes and groups not as the router told them", view.not_as_told),
        ("routes not as the kernel has them", view.not_as_kernel),
    ];
    for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let _infallible = writeln!(text, "{count:>8} {what}");
    }
    let verdict = match (view.intact, view.repaired) {
        (true, _) => "the eBPF FIB is as router and kernel have it",
        (false, true) => "written again: `lbctl doctor fib` says whether that helped",
        (false, false) => {
            "remedy: `lbctl doctor fib --repair` has router, eBPF and kernel told again and writes what differs"
        }
    };
    let _infallible = writeln!(text, "{verdict}");
    text
}

fn services_page(view: &ServiceAuditView) -> String {
    let mut text = String::new();
    for finding in &view.findings {
        let _infallible = writeln!(text, "differs  {finding}");
    }
    let ServiceAuditView { services, backends, .. } = view;
    let _infallible =
        writeln!(text, "compared {services} services and {backends} backends entry by entry");
    let counts = [
        ("entries of services", view.wrong_services),
        ("entries of backends", view.wrong_backends),
        ("rings", view.wrong_rings),
        ("lists of source addresses", view.wrong_sources),
        ("access lists and prefixes of port ranges", view.wrong_prefixes),
    ];
    for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let _infallible = writeln!(text, "{count:>8} {what} not as written");
    }
    let verdict = match (view.intact, view.repaired) {
        (true, _) => "the fast path's maps are as lbd wrote them",
        (false, true) => "written again: `lbctl doctor services` says whether that helped",
        (false, false) => "remedy: `lbctl doctor services --repair` writes what differs again",
    };
    let _infallible = writeln!(text, "{verdict}");
    text
}
