//! What a packet meets in the eBPF FIB, and whether that is what it should.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use lb_api_types::problem::Problem;
use lb_api_types::view::{FibAuditView, FibLookupView};
use lb_dataplane::fib::Packet;

use super::App;
use super::problem::Refused;
use super::terms::{Asked, nothing};

/// IP protocol numbers of the words that a query may say.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];

/// What a packet meets in the eBPF FIB: entry, group, the member that its flow leaves by, and whether router and kernel agree.
#[utoipa::path(get, path = "/api/v1/fib/lookup", tag = "dataplane",
    params(("destination" = String, Query, description = "Where the packet goes"),
        ("source" = Option<String>, Query, description = "Where it comes from; the unspecified address by default"),
        ("protocol" = Option<String>, Query, description = "tcp, udp, icmp, icmpv6, sctp or a number; tcp by default"),
        ("sourcePort" = Option<u16>, Query, description = "0 by default"),
        ("destinationPort" = Option<u16>, Query, description = "0 by default")),
    responses((status = 200, body = FibLookupView),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn lookup_fib(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<FibLookupView>, Refused> {
    app.views.fib_lookup(packet(&asked)?).await.map(Json).map_err(Refused::unavailable)
}

/// Holds the eBPF FIB against its routes, address by address, the routes against the router's, the router's against what BGP
/// selected, and them against the kernel's tables, both ways. Takes some seconds with a million routes; packets do not notice.
#[utoipa::path(get, path = "/api/v1/fib/audit", tag = "dataplane",
    responses((status = 200, body = FibAuditView)))]
pub(super) async fn audit_fib(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<FibAuditView>, Refused> {
    nothing(&asked)?;
    app.views.fib_audit(false).await.map(Json).map_err(Refused::unavailable)
}

/// The same, after the kernel's tables were read again (which restores our routes there), the router has taken over again what
/// BGP selected, and eBPF was told all again; and what differs in its memory is written again.
#[utoipa::path(post, path = "/api/v1/fib/repair", tag = "dataplane",
    responses((status = 200, body = FibAuditView)))]
pub(super) async fn repair_fib(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<FibAuditView>, Refused> {
    nothing(&asked)?;
    app.views.fib_audit(true).await.map(Json).map_err(Refused::unavailable)
}

fn packet(asked: &Asked) -> Result<Packet, Refused> {
    let (mut source, mut destination, mut protocol) = (None, None, 6);
    let (mut source_port, mut destination_port) = (0, 0);
    for (name, value) in &asked.0 {
        let wrong = |what: &str| Refused::query(&format!("{name}={value}"), what);
        let address = || value.parse::<IpAddr>().map_err(|_| wrong("an IP address is needed here"));
        let port = || value.parse::<u16>().map_err(|_| wrong("a port is 0 to 65535"));
        match name.as_str() {
            "destination" => destination = Some(address()?),
            "source" => source = Some(address()?),
            "protocol" => {
                let known = PROTOCOLS.iter().find(|(word, _)| word == value).map(|(_, n)| *n);
                let number = known.or_else(|| value.parse().ok());
                protocol =
                    number.ok_or_else(|| wrong("tcp, udp, icmp, icmpv6, sctp or a number"))?;
            }
            "sourcePort" => source_port = port()?,
            "destinationPort" => destination_port = port()?,
            _ => {
                return Err(wrong(
                    "destination, source, protocol, sourcePort and destinationPort are known here",
                ));
            }
        }
    }
    let destination = destination
        .ok_or_else(|| Refused::query("destination", "it is missing: say where the packet goes"))?;
    let source = source.unwrap_or(match destination {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    if source.is_ipv4() != destination.is_ipv4() {
        let what = format!("{destination} is of the other family: a packet has addresses of one");
        return Err(Refused::query(&format!("source={source}"), &what));
    }
    Ok(Packet { source, destination, protocol, source_port, destination_port })
}
