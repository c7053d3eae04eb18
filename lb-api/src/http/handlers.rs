//! One function per operation.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use lb_api_types::problem::Problem;
use lb_api_types::view::{BgpRouteView, FibView, FlowView, List, PeerView, Status};
use lb_api_types::vip::Vip;
use serde_json::Value;

use super::problem::Refused;
use super::{App, DEFAULT_LIMIT, MAX_BODY, MAX_LIMIT};
use crate::read::document;
use crate::registry::Refusal;
use crate::vip;

/// Every VIP with its status, by name.
#[utoipa::path(get, path = "/api/v1/vips", tag = "vips",
    responses((status = 200, body = List<Vip>)))]
pub(super) async fn list_vips(State(app): State<App>) -> Json<List<Vip>> {
    Json(List { items: app.registry.list().await, truncated: false })
}

/// A VIP with its status.
#[utoipa::path(get, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name")),
    responses((status = 200, body = Vip),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_vip(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Vip>, Refused> {
    let found = app.registry.get(&name).await;
    found.map(Json).ok_or_else(|| Refusal::Unknown(name).into())
}

/// Creates or replaces a VIP. The answer comes when it is kept and the dataplane serves it; BGP advertises it once a
/// backend is healthy. On an error nothing changes.
#[utoipa::path(put, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name, as in metadata.name")),
    request_body = Vip,
    responses((status = 200, body = Vip, description = "It was there before"),
        (status = 201, body = Vip, description = "It is new"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another VIP has its address, port and protocol, or it comes from the configuration file"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "More than 1 MiB"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many VIPs")))]
pub(super) async fn put_vip(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Vip>), Refused> {
    let vip = document(&json(&headers, body).await?, vip::read)
        .map_err(|mistakes| Refused::fields(&mistakes))?;
    if vip.metadata.name != name {
        return Err(Refused::name_differs(&name, &vip.metadata.name));
    }
    let applied = app.registry.put(vip).await?;
    let status = if applied.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(applied.vip)))
}

/// Withdraws a VIP from BGP and takes it out of the dataplane.
#[utoipa::path(delete, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It comes from the configuration file"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses")))]
pub(super) async fn delete_vip(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    app.registry.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// BGP neighbours, in the order of the configuration.
#[utoipa::path(get, path = "/api/v1/bgp/peers", tag = "bgp",
    responses((status = 200, body = List<PeerView>)))]
pub(super) async fn list_peers(State(app): State<App>) -> Json<List<PeerView>> {
    Json(List { items: app.views.peers().await, truncated: false })
}

/// Every path of every prefix, sorted by prefix, the best path first.
#[utoipa::path(get, path = "/api/v1/bgp/routes", tag = "bgp",
    params(("limit" = Option<usize>, Query, description = "Items at most; 10000 by default")),
    responses((status = 200, body = List<BgpRouteView>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_routes(
    State(app): State<App>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<List<BgpRouteView>>, Refused> {
    Ok(Json(app.views.routes(limit(&query)?).await))
}

/// The eBPF FIB, read back from the tables that packets read.
#[utoipa::path(get, path = "/api/v1/fib", tag = "dataplane",
    params(("limit" = Option<usize>, Query, description = "Items at most; 10000 by default")),
    responses((status = 200, body = List<FibView>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_fib(
    State(app): State<App>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<List<FibView>>, Refused> {
    app.views.fib(limit(&query)?).await.map(Json).map_err(Refused::unavailable)
}

/// Flows, in no particular order.
#[utoipa::path(get, path = "/api/v1/flows", tag = "dataplane",
    params(("limit" = Option<usize>, Query, description = "Items at most; 10000 by default")),
    responses((status = 200, body = List<FlowView>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_flows(
    State(app): State<App>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<List<FlowView>>, Refused> {
    app.views.flows(limit(&query)?).await.map(Json).map_err(Refused::unavailable)
}

/// The appliance as a whole.
#[utoipa::path(get, path = "/api/v1/status", tag = "status",
    responses((status = 200, body = Status)))]
pub(super) async fn get_status(State(app): State<App>) -> Result<Json<Status>, Refused> {
    app.views.status().await.map(Json).map_err(Refused::unavailable)
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "status",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(super) async fn get_openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}

pub(super) async fn json(headers: &HeaderMap, body: Body) -> Result<Value, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let plain = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.is_some_and(|kind| plain(kind) != "application/json") {
        return Err(Refused::media_type());
    }
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let said = said.and_then(|length| length.parse::<usize>().ok());
    if said.is_some_and(|length| length > MAX_BODY) {
        return Err(Refused::too_large());
    }
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        match source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            true => Refused::too_large(),
            false => Refused::body(&error),
        }
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Refused::json(&error))
}

fn limit(query: &BTreeMap<String, String>) -> Result<usize, Refused> {
    if let Some(unknown) = query.keys().find(|name| *name != "limit") {
        return Err(Refused::query(unknown));
    }
    let Some(limit) = query.get("limit") else { return Ok(DEFAULT_LIMIT) };
    let number = limit.parse().ok().filter(|number| (1..=MAX_LIMIT).contains(number));
    number.ok_or_else(|| Refused::query(&format!("limit={limit}")))
}
