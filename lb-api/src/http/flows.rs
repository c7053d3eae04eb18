//! The flow table, in pages: all of it, or those that are asked for.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use axum::Json;
use axum::extract::State;
use ipnetwork::IpNetwork;
use lb_api_types::problem::Problem;
use lb_api_types::view::{Flow, List};
use lb_dataplane::table::Protocol;
use lb_dataplane::{FlowFilter, FlowPlace, FlowState};

use super::App;
use super::problem::Refused;
use super::terms::{Asked, Part, part};

/// Which flows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedFlows {
    /// What the dataplane can tell.
    pub filter: FlowFilter,
    /// The name of the VIP that they are of.
    pub service: Option<String>,
}

/// Flows, in an order of the flow table's own. One that is there all the time is on exactly one page. Where some are asked
/// for, a page may be empty although others follow: `next` says so.
#[utoipa::path(get, path = "/api/v1/flows", tag = "dataplane",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 100_000, description = "Items at most; 10000 by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`, its end in the flow table"),
        ("client" = Option<String>, Query, description = "Only of clients with this address, or of this prefix"),
        ("vip" = Option<String>, Query, description = "Only to this VIP: ADDRESS or ADDRESS:PORT"),
        ("backend" = Option<String>, Query, description = "Only to this backend: ADDRESS or ADDRESS:PORT"),
        ("service" = Option<String>, Query, description = "Only of the VIP with this name"),
        ("protocol" = Option<String>, Query, pattern = "^(tcp|udp|sctp|icmp)$", description = "Only of this transport"),
        ("state" = Option<String>, Query, pattern = "^(half-open|established|closing)$",
            description = "Only those that are so far")),
    responses((status = 200, body = List<Flow>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_flows(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<Flow>>, Refused> {
    let (Part { limit, after }, wanted) = wanted(asked)?;
    app.views.flows(after, limit, wanted).await.map(Json).map_err(Refused::unavailable)
}

fn wanted(asked: Asked) -> Result<(Part<FlowPlace>, WantedFlows), Refused> {
    let (mut wanted, mut others) = (WantedFlows::default(), Vec::new());
    let WantedFlows { filter, service } = &mut wanted;
    for (name, value) in asked.0 {
        let known = match name.as_str() {
            "client" => set(&mut filter.client, value.parse::<IpNetwork>().ok()),
            "vip" => set(&mut filter.vip, place(&value)),
            "backend" => set(&mut filter.backend, place(&value)),
            "service" => set(service, Some(value.clone())),
            "protocol" => set(&mut filter.protocol, protocol(&value)),
            "state" => set(&mut filter.state, state(&value)),
            "limit" | "cursor" => {
                others.push((name, value));
                continue;
            }
            _ => {
                let known = "only limit, cursor, client, vip, backend, service, protocol and state are known here";
                return Err(Refused::query(&format!("{name}={value}"), known));
            }
        };
        if !known {
            return Err(Refused::query(&format!("{name}={value}"), EXPECTED));
        }
    }
    let part = part(&axum::extract::Query(others), |place| place.parse::<FlowPlace>().ok())?;
    Ok((part, wanted))
}

const EXPECTED: &str = "each is said once: client is an address or a prefix, vip and backend are ADDRESS or ADDRESS:PORT, protocol is tcp, udp, sctp or icmp, state is half-open, established or closing";

/// Sets what is asked for; whether it could be read, and was not asked for before.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    let is_new = field.is_none() && value.is_some();
    *field = value;
    is_new
}

fn place(text: &str) -> Option<(IpAddr, RangeInclusive<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, 0..=u16::MAX));
    }
    let socket: SocketAddr = text.parse().ok()?;
    Some((socket.ip(), socket.port()..=socket.port()))
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        "icmp" => Some(Protocol::Icmp),
        _ => None,
    }
}

fn state(text: &str) -> Option<FlowState> {
    [FlowState::HalfOpen, FlowState::Established, FlowState::Closing]
        .into_iter()
        .find(|state| state.name() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &[(&str, &str)]) -> Asked {
        axum::extract::Query(
            query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        )
    }

    #[test]
    fn what_is_asked_for_is_read_beside_the_page() {
        let (part, wanted) = wanted(asked(&[
            ("client", "10.1.0.0/16"),
            ("limit", "7"),
            ("vip", "[2001:db8::1]:80"),
            ("backend", "10.2.0.9"),
            ("service", "web"),
            ("protocol", "udp"),
            ("state", "half-open"),
        ]))
        .unwrap_or_else(|_| panic!("it is well-formed"));
        assert_eq!((part.limit, part.after), (7, None));
        assert_eq!(wanted.service.as_deref(), Some("web"));
        let filter = wanted.filter;
        assert_eq!(filter.client, "10.1.0.0/16".parse().ok());
        assert_eq!(filter.vip, place("[2001:db8::1]:80"));
        assert_eq!(filter.backend, "10.2.0.9".parse().ok().map(|address| (address, 0..=65_535)));
        assert_eq!(
            (filter.protocol, filter.state),
            (Some(Protocol::Udp), Some(FlowState::HalfOpen))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (name, value) in [
            ("client", "10.1.0.0/33"),
            ("vip", "10.2.0.9:x"),
            ("backend", "web"),
            ("protocol", "igmp"),
            ("state", "open"),
            ("colour", "red"),
        ] {
            assert!(wanted(asked(&[(name, value)])).is_err(), "{name}={value}");
        }
    }
}
