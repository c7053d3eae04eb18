//! One function per operation.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use ipnetwork::IpNetwork;
use lb_api_types::problem::Problem;
use lb_api_types::view::{Appliance, Doctor, FibEntry, List};
use serde_json::Value;

use super::problem::Refused;
use super::strict;
use super::terms::{Asked, Part, nothing, part};
use super::{App, BODY_WITHIN, MAX_BODY};

pub(super) type Name = Result<Path<String>, PathRejection>;

/// The eBPF FIB, read back from the tables that packets read, sorted by prefix.
#[utoipa::path(get, path = "/api/v1/fib", tag = "dataplane",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 100_000, description = "Items at most; 10000 by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`, its last prefix")),
    responses((status = 200, body = List<FibEntry>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_fib(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<FibEntry>>, Refused> {
    let Part { limit, after } = part(&asked, |prefix| prefix.parse::<IpNetwork>().ok())?;
    app.views.fib(after, limit).await.map(Json).map_err(Refused::unavailable)
}

/// The appliance as a whole.
#[utoipa::path(get, path = "/api/v1/status", tag = "status",
    responses((status = 200, body = Appliance),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_status(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<Appliance>, Refused> {
    nothing(&asked)?;
    app.views.status().await.map(Json).map_err(Refused::unavailable)
}

/// What of this host, its neighbours and the configuration stands in the way, each with its remedy.
#[utoipa::path(get, path = "/api/v1/doctor", tag = "status",
    responses((status = 200, body = Doctor),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_doctor(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<Doctor>, Refused> {
    nothing(&asked)?;
    app.views.doctor().await.map(Json).map_err(Refused::unavailable)
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "status",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(super) async fn get_openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}

pub(super) async fn json(headers: &HeaderMap, body: Body, wanted: &str) -> Result<Value, Refused> {
    read_json(headers, body, wanted, MAX_BODY).await
}

pub(super) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    wanted: &str,
    most: usize,
) -> Result<Value, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let plain = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.is_some_and(|kind| plain(kind) != wanted) {
        return Err(Refused::media_type(wanted));
    }
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let said = said.and_then(|length| length.parse::<usize>().ok());
    if said.is_some_and(|length| length > most) {
        return Err(Refused::too_large(most));
    }
    let bytes = tokio::time::timeout(BODY_WITHIN, to_bytes(body, most)).await;
    let bytes = bytes.map_err(|_elapsed| Refused::slow_body())?.map_err(|error| {
        let source = std::error::Error::source(&error);
        match source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            true => Refused::too_large(most),
            false => Refused::body(&error),
        }
    })?;
    strict::value(&bytes).map_err(|error| Refused::json(&error))
}
