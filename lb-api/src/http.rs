//! The REST API: `/api/v1` over what the registry and the views say, and what probes and Prometheus ask for.

mod backends;
mod bgp;
mod config;
mod events;
mod fib;
mod flows;
mod guard;
mod handlers;
mod listen;
mod metrics;
mod openapi;
mod patch;
mod probes;
mod problem;
mod request;
mod resources;
mod room;
mod schema;
mod services;
mod strict;
mod terms;
mod tls;
mod tokens;
mod views;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use lb_api_types::bgp::GlobalStatus;
use lb_api_types::view::{
    Appliance, BgpRoute, BgpRouteSpec, ClearWhat, Doctor, Explanation, FibAuditView, FibEntry,
    FibLookupView, Flow, Interface, List, PeerView, ReasonView, ServiceAuditView,
};
use lb_dataplane::FlowPlace;
use lb_dataplane::fib::Packet;
use lb_routing::StaticsStatus;
use lb_routing::{Destination, Query};
use tokio::sync::Semaphore;

pub use self::flows::WantedFlows;
use self::guard::Gate;
pub(crate) use self::listen::answers;
pub use self::listen::{ListenError, Listeners, serve};
pub use self::openapi::document;
use self::problem::Refused;
use self::room::Room;
pub use self::schema::schema;
pub(crate) use self::tls::{examine, versions};
pub(crate) use self::views::current;
use crate::access::Access;
use crate::events::Events;
use crate::registry::Registry;

/// Bytes of a request's body at most.
pub const MAX_BODY: usize = 1024 * 1024;
/// Bytes of a whole configuration at most; one is read at a time.
pub const MAX_CONFIG: usize = 64 * 1024 * 1024;
/// How long a request's body may take.
pub const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Items of a list unless the request says `limit`.
pub const DEFAULT_LIMIT: usize = 10_000;
/// What `limit` may say at most: as many answers are in memory as requests are in work.
pub const MAX_LIMIT: usize = 100_000;

/// What the appliance shows of itself. An error says in one sentence why it cannot.
pub trait Views: Send + Sync + 'static {
    /// BGP neighbours.
    fn peers(&self) -> BoxFuture<'_, Vec<PeerView>>;
    /// Clears a BGP session; says whether there is such a neighbour.
    fn clear(&self, peer: IpAddr, what: ClearWhat) -> BoxFuture<'_, bool>;
    /// What is known of a destination, and who hears of it.
    fn explain(&self, what: Destination) -> BoxFuture<'_, Result<Explanation, String>>;
    /// BGP paths that are asked for, after one, at most `limit`.
    fn routes(
        &self,
        query: Query,
        after: Option<BgpRouteSpec>,
        limit: usize,
    ) -> BoxFuture<'_, List<BgpRoute>>;
    /// The eBPF FIB after a prefix, at most `limit` entries.
    fn fib(
        &self,
        after: Option<IpNetwork>,
        limit: usize,
    ) -> BoxFuture<'_, Result<List<FibEntry>, String>>;
    /// What a packet meets in the eBPF FIB.
    fn fib_lookup(&self, packet: Packet) -> BoxFuture<'_, Result<FibLookupView, String>>;
    /// Whether the eBPF FIB holds what router and kernel have; with `repair`, it is made to.
    fn fib_audit(&self, repair: bool) -> BoxFuture<'_, Result<FibAuditView, String>>;
    /// Whether the eBPF maps of services hold what is asked for; with `repair`, they are made to.
    fn service_audit(&self, repair: bool) -> BoxFuture<'_, Result<ServiceAuditView, String>>;
    /// Flows from a place on, at most `limit`.
    fn flows(
        &self,
        from: Option<FlowPlace>,
        limit: usize,
        wanted: WantedFlows,
    ) -> BoxFuture<'_, Result<List<Flow>, String>>;
    /// How static routes and addresses are.
    fn statics(&self) -> BoxFuture<'_, StaticsStatus>;
    /// What happens to flows that are watched; `None` where none are.
    fn flow_events(&self) -> Option<Events>;
    /// The host's interfaces.
    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<Interface>, String>>;
    /// What BGP has in common for all neighbours.
    fn global(&self) -> BoxFuture<'_, GlobalStatus>;
    /// The appliance as a whole.
    fn status(&self) -> BoxFuture<'_, Result<Appliance, String>>;
    /// Packets by reason, those that never came included.
    fn reasons(&self) -> BoxFuture<'_, Result<Vec<ReasonView>, String>>;
    /// What stands in the way.
    fn doctor(&self) -> BoxFuture<'_, Result<Doctor, String>>;
}

/// What every request needs.
#[derive(Clone)]
pub(crate) struct App {
    registry: Registry,
    views: Arc<dyn Views>,
    events: Events,
    access: Arc<Access>,
    /// Held by whoever sends a whole configuration that is to be.
    applying: Arc<Semaphore>,
    /// Held by whoever only asks what one would change: who may not change anything is in nobody's way.
    looking: Arc<Semaphore>,
}

/// The API.
pub fn router(
    registry: Registry,
    views: Arc<dyn Views>,
    events: Events,
    access: Arc<Access>,
) -> Router {
    let app = App {
        registry,
        views,
        events,
        access: Arc::clone(&access),
        applying: Arc::new(Semaphore::new(1)),
        looking: Arc::new(Semaphore::new(1)),
    };
    let api = Router::new()
        .route("/vips/{name}/backends", get(backends::list_backends))
        .route(
            "/vips/{name}/backends/{backend}",
            get(backends::get_backend)
                .put(backends::put_backend)
                .patch(backends::patch_backend)
                .delete(backends::delete_backend),
        )
        .merge(resources::routes())
        .route("/config/validate", post(config::validate_config))
        .route("/config/diff", post(config::diff_config))
        .route("/interfaces", get(views::list_interfaces))
        .route("/interfaces/{name}", get(views::get_interface))
        .route("/version", get(views::get_version))
        .route("/schema.json", get(views::get_schema))
        .route("/config", get(config::get_config).post(config::apply_config))
        .route("/config/confirm", post(config::confirm_config))
        .route("/config/rollback", post(config::rollback_config))
        .route("/config/history", get(config::config_history))
        .route("/tokens", get(tokens::list_tokens).post(tokens::make_token))
        .route("/tokens/{name}", get(tokens::get_token).delete(tokens::delete_token))
        .route("/events", get(events::get_events))
        .route("/bgp/peers/{name}/clear", post(bgp::clear_peer))
        .route("/bgp/explain", get(bgp::explain))
        .route("/bgp/routes", get(bgp::list_routes))
        .route("/fib", get(handlers::list_fib))
        .route("/fib/lookup", get(fib::lookup_fib))
        .route("/fib/audit", get(fib::audit_fib))
        .route("/fib/repair", post(fib::repair_fib))
        .route("/services/audit", get(services::audit_services))
        .route("/services/repair", post(services::repair_services))
        .route("/flows", get(flows::list_flows))
        .route("/flows/events", get(events::get_flow_events))
        .route("/status", get(handlers::get_status))
        .route("/doctor", get(handlers::get_doctor))
        .route("/openapi.json", get(handlers::get_openapi))
        .with_state(app.clone());
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .with_state(app)
        .fallback(async |request: Request<axum::body::Body>| {
            Refused::no_such_path(request.uri().path())
        })
        .method_not_allowed_fallback(async |request: Request<axum::body::Body>| {
            Refused::method(request.method(), request.uri().path())
        })
        .layer(middleware::from_fn_with_state(Gate { access, room: Room::new() }, guard::guard))
        .layer(middleware::from_fn(request::identify))
}

/// The API for a TCP listener: only for requests that mean a loopback host, so that no web page can reach it by a name
/// of its own (DNS rebinding).
pub(crate) fn for_loopback(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: axum::extract::Request, next: Next| {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        match host {
            Some(host) if names_loopback(host) => next.run(request).await,
            Some(_) | None => Refused::host().into_response(),
        }
    }))
}

/// Whether a host, with or without a port, is this one by a loopback name.
pub(crate) fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
pub(crate) mod tests;
