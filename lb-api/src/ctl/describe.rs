//! One VIP with everything that is known of it.

use std::fmt::Write;

use lb_api_types::vip::{Algorithm, Backend, Health, HealthCheckKind, Nat, NatMode, Protocol, Vip};

use super::table::table;

/// The page.
pub(super) fn vip(vip: &Vip) -> String {
    let spec = &vip.spec;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{:<14}{value}", format!("{name}:"));
    };
    line("Name", vip.metadata.name.clone());
    line("Address", format!("{} {} {}", spec.address, protocol(spec.protocol), spec.port));
    line("Algorithm", algorithm(spec.algorithm).into());
    line("NAT", nat(&spec.nat));
    let check = &spec.health_check;
    line(
        "Health check",
        match check.kind {
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
    let at = |backend: &Backend| (backend.address, backend.port);
    let rows: Vec<_> = status
        .backends
        .iter()
        .map(|backend| {
            [
                format!("  {}:{}", backend.address, backend.port),
                match spec
                    .backends
                    .iter()
                    .any(|b| b.drain && at(b) == (backend.address, backend.port))
                {
                    true => format!("{}, drained", health(backend.health)),
                    false => health(backend.health).into(),
                },
                backend.flows.to_string(),
                backend.packets.to_string(),
                backend.message.clone(),
            ]
        })
        .collect();
    text.push_str("Backends:\n");
    text.push_str(&table(["  ADDRESS", "HEALTH", "FLOWS", "PACKETS", "LAST ERROR"], &rows));
    text
}

pub(super) fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

pub(super) fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Maglev => "maglev",
        Algorithm::RoundRobin => "round-robin",
    }
}

fn nat(nat: &Nat) -> String {
    match nat.mode {
        NatMode::Dnat => "dnat: backends see clients' addresses".into(),
        NatMode::OneArm => "one-arm: backends see this host's address".into(),
        NatMode::FullNat if nat.source_addresses.is_empty() => {
            "full-nat: backends see the VIP".into()
        }
        NatMode::FullNat => {
            let all: Vec<_> = nat.source_addresses.iter().map(ToString::to_string).collect();
            format!("full-nat: backends see {}", all.join(", "))
        }
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}
