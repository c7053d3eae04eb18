//! One function per operation.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use ipnetwork::IpNetwork;
use lb_api_types::problem::Problem;
use lb_api_types::view::{Appliance, BgpRoute, BgpRouteSpec, Doctor, FibEntry, Flow, List};
use lb_api_types::vip::Vip;
use lb_dataplane::FlowPlace;
use serde_json::Value;

use super::problem::Refused;
use super::terms::{Asked, Part, etag, name, nothing, page, part, terms};
use super::{App, BODY_WITHIN, MAX_BODY, patch};
use crate::read::document;
use crate::registry::{Applied, Expected, Refusal, Terms};
use crate::vip;

/// How often a patch is tried anew when somebody else changes the VIP meanwhile.
pub(super) const PATCH_TRIES: usize = 8;

pub(super) type Name = Result<Path<String>, PathRejection>;
type Changed = Result<(StatusCode, HeaderMap, Json<Vip>), Refused>;

/// Every VIP with its status, by name.
#[utoipa::path(get, path = "/api/v1/vips", tag = "vips",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 2_000_000, description = "Items at most; all by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`"),
        ("labelSelector" = Option<String>, Query, description = "Only those with such labels: app=web,tier!=test,canary,!old")),
    responses((status = 200, body = List<Vip>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_vips(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<Vip>>, Refused> {
    let page = page(&asked)?;
    Ok(Json(page.of(app.registry.list().await?, |vip| &vip.metadata)))
}

/// A VIP with its status. The header ETag is its revision, for If-Match.
#[utoipa::path(get, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name")),
    responses((status = 200, body = Vip),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_vip(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<(HeaderMap, Json<Vip>), Refused> {
    nothing(&asked)?;
    let vip = app.registry.get(&name(path)?).await?;
    Ok((etag(&vip.metadata), Json(vip)))
}

/// Creates or replaces a VIP. The answer comes when it is kept and the dataplane serves it; BGP advertises it once a
/// backend is healthy. On an error nothing changes.
#[utoipa::path(put, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name, as in metadata.name"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it; whether the dataplane has room is not tried"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The revision that is replaced, in quotes, or * for any that is there"),
        ("If-None-Match" = Option<String>, Header, pattern = "^[*]$", description = "* creates only")),
    request_body = Vip,
    responses((status = 200, body = Vip, description = "It was there before"),
        (status = 201, body = Vip, description = "It is new"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "The body is slow"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another VIP has its address, port and protocol, or it comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "If-Match, If-None-Match or metadata.revision is not what is there"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "More than 1 MiB"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many VIPs")))]
pub(super) async fn put_vip(
    State(app): State<App>,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (name, terms) = (name(path)?, terms(&headers, &asked)?);
    let vip = vip(&name, &json(&headers, body, "application/json").await?)?;
    changed(app.registry.put(vip, terms).await?)
}

/// Changes fields of a VIP by a JSON Merge Patch (RFC 7396): null takes a field away, a list is replaced as a whole.
#[utoipa::path(patch, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The revision that is changed, in quotes, or *")),
    request_body(content = Object, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Vip),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "The body is slow"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another VIP has its address, port and protocol, or it comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "If-Match or metadata.revision is not what is there"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "More than 1 MiB"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "No merge patch"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses")))]
pub(super) async fn patch_vip(
    State(app): State<App>,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let (name, terms) = (name(path)?, terms(&headers, &asked)?);
    let patch = json(&headers, body, "application/merge-patch+json").await?;
    let mut outcome = patch_once(&app, &name, &patch, terms).await?;
    for _ in 1..PATCH_TRIES {
        match outcome {
            Err(Refusal::Stale { .. })
                if matches!(terms.expected, Expected::Any | Expected::Something) =>
            {
                outcome = patch_once(&app, &name, &patch, terms).await?;
            }
            Ok(_) | Err(_) => break,
        }
    }
    changed(outcome?)
}

/// Reads, merges and replaces what was read; if it is there no longer, that is the inner error.
async fn patch_once(
    app: &App,
    name: &str,
    patch: &Value,
    terms: Terms,
) -> Result<Result<Applied, Refusal>, Refused> {
    let current = app.registry.get(name).await?;
    let revision = current.metadata.revision;
    let mut merged = serde_json::to_value(&current).map_err(|error| Refused::json(&error))?;
    patch::merge(&mut merged, serde_json::json!({"status": null, "metadata": {"revision": null}}));
    patch::merge(&mut merged, patch.clone());
    let vip = vip(name, &merged)?;
    // A revision of the client's own is what it has to match.
    let expected = match (terms.expected, vip.metadata.revision) {
        (Expected::Any | Expected::Something, None) => {
            revision.map_or(Expected::Any, Expected::Revision)
        }
        (expected, _) => expected,
    };
    Ok(app.registry.put(vip, Terms { expected, ..terms }).await)
}

fn vip(name: &str, body: &Value) -> Result<Vip, Refused> {
    let vip = document(body, vip::read).map_err(|mistakes| Refused::fields(&mistakes))?;
    if vip.metadata.name != name {
        return Err(Refused::name_differs(name, &vip.metadata.name));
    }
    Ok(vip)
}

fn changed(applied: Applied) -> Changed {
    let status = if applied.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, etag(&applied.vip.metadata), Json(applied.vip)))
}

/// Withdraws a VIP from BGP and takes it out of the dataplane.
#[utoipa::path(delete, path = "/api/v1/vips/{name}", tag = "vips",
    params(("name" = String, Path, description = "The VIP's name"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The revision that is removed, in quotes, or *")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "If-Match is not what is there"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses")))]
pub(super) async fn delete_vip(
    State(app): State<App>,
    path: Name,
    asked: Asked,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    app.registry.delete(&name(path)?, terms(&headers, &asked)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every path of every prefix, sorted by prefix and neighbour, our own first: an order that does not change while others
/// come and go.
#[utoipa::path(get, path = "/api/v1/bgp/routes", tag = "bgp",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 2_000_000, description = "Items at most; 10000 by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`, the name of its last path")),
    responses((status = 200, body = List<BgpRoute>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_routes(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<BgpRoute>>, Refused> {
    let Part { limit, after } = part(&asked, |name| name.parse::<BgpRouteSpec>().ok())?;
    Ok(Json(app.views.routes(after, limit).await))
}

/// The eBPF FIB, read back from the tables that packets read, sorted by prefix.
#[utoipa::path(get, path = "/api/v1/fib", tag = "dataplane",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 2_000_000, description = "Items at most; 10000 by default"),
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

/// Flows, in an order of the flow table's own. One that is there all the time is on exactly one page.
#[utoipa::path(get, path = "/api/v1/flows", tag = "dataplane",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 2_000_000, description = "Items at most; 10000 by default"),
        ("cursor" = Option<String>, Query, description = "What the page before says as `next`, its end in the flow table")),
    responses((status = 200, body = List<Flow>),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_flows(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<Flow>>, Refused> {
    let Part { limit, after } = part(&asked, |place| place.parse::<FlowPlace>().ok())?;
    app.views.flows(after, limit).await.map(Json).map_err(Refused::unavailable)
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
    serde_json::from_slice(&bytes).map_err(|error| Refused::json(&error))
}
