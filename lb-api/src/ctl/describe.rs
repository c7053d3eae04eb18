//! One VIP with everything that is known of it.

use std::fmt::Write;

use ipnetwork::IpNetwork;
use lb_api_types::vip::{
    Access, BackendStatus, Health, HealthCheckKind, MssClamp, Nat, NatMode, OnExhaustion,
    OnUnhealthy, Vip, VipSpec, VipStatus,
};

use super::table::{or_dash, table};

/// Prefixes of an access list that are shown.
const SHOWN: usize = 8;

/// The page.
pub(super) fn vip(vip: &Vip) -> String {
    let spec = &vip.spec;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{:<14}{value}", format!("{name}:"));
    };
    line("Name", vip.metadata.name.clone());
    line("Address", format!("{} {} {}", spec.address, spec.protocol.name(), spec.ports()));
    if let Some(pool) = &spec.pool {
        line("Pool", pool.clone());
    }
    if !vip.metadata.labels.is_empty() {
        let labels = vip.metadata.labels.iter().map(|(name, value)| format!("{name}={value}"));
        line("Labels", labels.collect::<Vec<_>>().join(", "));
    }
    let of_slots = spec.maglev_table_size.map_or(String::new(), |size| format!(", {size} slots"));
    line("Algorithm", format!("{}{of_slots}", spec.algorithm));
    if let Some(seconds) = spec.affinity_secs {
        line("Affinity", format!("a client's flows go to one backend for {seconds} s"));
    }
    line("NAT", nat(&spec.nat));
    if let Some(bounds) = bounds(spec) {
        line("Flows", bounds);
    }
    if let Some(life) = life(spec) {
        line("Life", life);
    }
    if !spec.access.is_open() {
        line("Access", access(&spec.access));
    }
    let check = &spec.health_check;
    line(
        "Health check",
        match check.kind {
            HealthCheckKind::None | HealthCheckKind::Tcp if check.from.is_some() => {
                format!("as health check {} says", check.from.as_deref().unwrap_or_default())
            }
            HealthCheckKind::None => "none: every backend counts as healthy".into(),
            HealthCheckKind::Tcp => format!(
                "tcp every {} ms, timeout {} ms, rise {}, fall {}",
                check.interval_ms, check.timeout_ms, check.rise, check.fall
            ),
        },
    );
    let Some(status) = &vip.status else { return text };
    line("Serving", yes_no(status.serving).into());
    line("Advertised", yes_no(status.advertised).into());
    line("Why", status.message.clone());
    line(
        "Traffic",
        format!("{} flows, {} packets, {} bytes", status.flows, status.packets, status.bytes),
    );
    line("Replies", format!("{} packets, {} bytes", status.reply_packets, status.reply_bytes));
    if status.evicted_flows > 0 {
        line("Evicted", format!("{} half-open flows made room for others", status.evicted_flows));
    }
    if status.exhausted_flows > 0 {
        line("Exhausted", format!("{} new flows found no source port", status.exhausted_flows));
    }
    text.push_str("Backends:\n");
    text.push_str(&backends(spec, status));
    text
}

fn backends(spec: &VipSpec, status: &VipStatus) -> String {
    let asked = |status: &BackendStatus| {
        let at = (status.address, status.port);
        spec.backends.iter().find(|backend| (backend.address, backend.port) == at)
    };
    let rows: Vec<_> = status
        .backends
        .iter()
        .map(|backend| {
            [
                format!("  {}:{}", backend.address, backend.port),
                match asked(backend).map(|asked| (asked.disabled, asked.drain)) {
                    Some((true, _)) => "disabled".into(),
                    Some((false, true)) => format!("{}, drained", health(backend.health)),
                    Some((false, false)) | None => health(backend.health).into(),
                },
                asked(backend).map_or(1, |asked| asked.weight).to_string(),
                backend.active_flows.to_string(),
                backend.half_open_flows.to_string(),
                backend.flows.to_string(),
                backend.packets.to_string(),
                or_dash(Some(backend.message.clone())),
            ]
        })
        .collect();
    let heading =
        ["  ADDRESS", "HEALTH", "WEIGHT", "ACTIVE", "HALF-OPEN", "FLOWS", "PACKETS", "LAST ERROR"];
    table(heading, &rows)
}

pub(super) fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn access(access: &Access) -> String {
    let listed = |prefixes: &[IpNetwork]| {
        let all: Vec<_> = prefixes.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = prefixes.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", all.join(", "))
    };
    match (access.allow.is_empty(), access.deny.is_empty()) {
        (true, _) => format!("all but {}", listed(&access.deny)),
        (false, true) => format!("only {}", listed(&access.allow)),
        (false, false) => {
            format!("only {}, but not {}", listed(&access.allow), listed(&access.deny))
        }
    }
}

/// How many flows it may have, if that is bound.
fn bounds(spec: &VipSpec) -> Option<String> {
    let all = spec.max_flows.map(|most| format!("{most} at most"));
    let each = spec.max_flows_per_client.map(|most| format!("{most} of each client at most"));
    let said: Vec<_> = all.into_iter().chain(each).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// What it says of its flows' life, if anything.
fn life(spec: &VipSpec) -> Option<String> {
    let idle = spec.idle_timeout_secs.map(|secs| format!("flows end after {secs} s of silence"));
    let reset =
        spec.reset_on_expiry.then(|| "silent flows end with a RST to both sides".to_owned());
    let unhealthy = spec.on_unhealthy.map(|what| {
        let what = match what {
            OnUnhealthy::Keep => "stay",
            OnUnhealthy::Drop => "end",
            OnUnhealthy::Reset => "end with a RST to both sides",
        };
        format!("flows of unhealthy backends {what}")
    });
    let exhausted = match spec.nat.on_exhaustion {
        OnExhaustion::Drop => None,
        OnExhaustion::Reset => Some("who finds no source port hears a RST".to_owned()),
        OnExhaustion::Icmp => Some("who finds no source port hears an ICMP error".to_owned()),
    };
    let mss = spec.mss_clamp.map(|clamp| match clamp {
        MssClamp::Auto(_) => "SYNs announce segments of what fits here at most".to_owned(),
        MssClamp::Bytes(most) => format!("SYNs announce segments of {most} bytes at most"),
    });
    let said: Vec<_> = [idle, reset, unhealthy, exhausted, mss].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn nat(nat: &Nat) -> String {
    match nat.mode {
        NatMode::Dnat => "dnat: backends see clients' addresses".into(),
        NatMode::OneArm => "one-arm: backends see this host's address".into(),
        NatMode::Dsr => "dsr: backends on our links answer clients themselves".into(),
        NatMode::DsrIpip => "dsr-ipip: backends answer clients themselves, IP in IP to them".into(),
        NatMode::DsrGue => "dsr-gue: backends answer clients themselves, GUE to them".into(),
        NatMode::FullNat if nat.source_addresses.is_empty() => {
            "full-nat: backends see the VIP".into()
        }
        NatMode::FullNat => {
            let all: Vec<_> = nat.source_addresses.iter().map(ToString::to_string).collect();
            format!("full-nat: backends see {}", all.join(", "))
        }
    }
}

pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}
