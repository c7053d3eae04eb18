//! Backends of a VIP one by one: each is a part of the VIP, and has its revision.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use lb_api_types::problem::Problem;
use lb_api_types::resource::{
    BackendMetadata, BackendResource, BackendResourceStatus, Condition, ConditionStatus,
};
use lb_api_types::view::List;
use lb_api_types::vip::{Backend, BackendStatus, Health, Vip};
use serde_json::{Value, json};

use super::App;
use super::handlers::{Name, json as read_body};
use super::patch::{self, Tries};
use super::problem::Refused;
use super::terms::{Asked, etag, name, nothing, terms};
use crate::read::{Cursor, document};
use crate::registry::{Expected, Refusal, Terms};
use crate::vip;

type Names = Result<Path<(String, String)>, PathRejection>;
type Answer = (StatusCode, HeaderMap, Json<BackendResource>);
type Changed = Result<Answer, Refused>;

/// Every backend of a VIP, with its status, in the VIP's order.
#[utoipa::path(get, path = "/api/v1/vips/{name}/backends", tag = "backends",
    params(("name" = String, Path, description = "The VIP's name")),
    responses((status = 200, body = List<BackendResource>),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_backends(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<Json<List<BackendResource>>, Refused> {
    nothing(&asked)?;
    let vip = app.registry.get(&name(path)?).await?;
    let items = vip.spec.backends.iter().map(|backend| view(&vip, backend)).collect();
    Ok(Json(List { items, truncated: false, next: None }))
}

/// A backend with its status. The header ETag is its VIP's revision, for If-Match.
#[utoipa::path(get, path = "/api/v1/vips/{name}/backends/{backend}", tag = "backends",
    params(("name" = String, Path, description = "The VIP's name"),
        ("backend" = String, Path, description = "Its address and port: 10.0.0.1:8080")),
    responses((status = 200, body = BackendResource),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_backend(
    State(app): State<App>,
    path: Names,
    asked: Asked,
) -> Result<(HeaderMap, Json<BackendResource>), Refused> {
    nothing(&asked)?;
    let (name, at) = names(path)?;
    let vip = app.registry.get(&name).await?;
    let backend = find(&vip, at).ok_or_else(|| Refused::no_backend(&name, at))?;
    Ok((etag(&vip.metadata), Json(view(&vip, backend))))
}

/// Adds a backend to a VIP, or replaces it.
#[utoipa::path(put, path = "/api/v1/vips/{name}/backends/{backend}", tag = "backends",
    params(("name" = String, Path, description = "The VIP's name"),
        ("backend" = String, Path, description = "Its address and port, as in its spec: 10.0.0.1:8080"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The VIP's revision that is replaced, in quotes, or *"),
        ("If-None-Match" = Option<String>, Header, pattern = "^[*]$", description = "* only adds one")),
    request_body = BackendResource,
    responses((status = 200, body = BackendResource, description = "It was there before"),
        (status = 201, body = BackendResource, description = "It is new"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such VIP"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The VIP comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "The VIP has another revision")))]
pub(super) async fn put_backend(
    State(app): State<App>,
    path: Names,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let ((name, at), terms) = (names(path)?, terms(&headers, &asked)?);
    let body = read_body(&headers, body, "application/json").await?;
    let (backend, revision) = read(&body, at)?;
    change(&app, &name, at, said(terms, revision), |_| Ok(Some(backend.clone()))).await
}

/// Changes fields of a backend by a JSON Merge Patch (RFC 7396): its weight, `drain`, `disabled`.
#[utoipa::path(patch, path = "/api/v1/vips/{name}/backends/{backend}", tag = "backends",
    params(("name" = String, Path, description = "The VIP's name"),
        ("backend" = String, Path, description = "Its address and port: 10.0.0.1:8080"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The VIP's revision that is changed, in quotes, or *")),
    request_body(content = Object, content_type = "application/merge-patch+json"),
    responses((status = 200, body = BackendResource),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The VIP comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "The VIP has another revision")))]
pub(super) async fn patch_backend(
    State(app): State<App>,
    path: Names,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Changed {
    let ((name, at), terms) = (names(path)?, terms(&headers, &asked)?);
    let change_of = read_body(&headers, body, "application/merge-patch+json").await?;
    let revision = change_of.pointer("/metadata/revision").and_then(Value::as_u64);
    change(&app, &name, at, said(terms, revision), |old| {
        let old = old.ok_or_else(|| Refused::no_backend(&name, at))?;
        let mut merged = json!({"metadata": {"name": at.to_string()}, "spec": old});
        patch::merge(&mut merged, change_of.clone());
        Ok(Some(read(&merged, at)?.0))
    })
    .await
}

/// Takes a backend out of a VIP.
#[utoipa::path(delete, path = "/api/v1/vips/{name}/backends/{backend}", tag = "backends",
    params(("name" = String, Path, description = "The VIP's name"),
        ("backend" = String, Path, description = "Its address and port: 10.0.0.1:8080"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("If-Match" = Option<String>, Header, pattern = "^([*]|\"[0-9]{1,19}\")$", description = "The VIP's revision that is changed, in quotes, or *")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The VIP comes from the configuration file"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "The VIP has another revision"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "It is the VIP's last one")))]
pub(super) async fn delete_backend(
    State(app): State<App>,
    path: Names,
    asked: Asked,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let ((name, at), terms) = (names(path)?, terms(&headers, &asked)?);
    let gone = change(&app, &name, at, terms, |old| match old {
        Some(_) => Ok(None),
        None => Err(Refused::no_backend(&name, at)),
    });
    gone.await.map(|_| StatusCode::NO_CONTENT)
}

/// Replaces a backend by what becomes of it, or takes it out.
async fn change(
    app: &App,
    name: &str,
    at: SocketAddr,
    terms: Terms,
    what: impl Fn(Option<&Backend>) -> Result<Option<Backend>, Refused>,
) -> Changed {
    let mut tries = Tries::default();
    loop {
        let outcome = change_once(app, name, at, terms, &what).await?;
        if !tries.again(terms, &outcome) {
            return Ok(outcome?);
        }
    }
}

async fn change_once(
    app: &App,
    name: &str,
    at: SocketAddr,
    terms: Terms,
    what: impl Fn(Option<&Backend>) -> Result<Option<Backend>, Refused>,
) -> Result<Result<Answer, Refusal>, Refused> {
    let mut vip = app.registry.get(name).await?;
    let place = vip.spec.backends.iter().position(|backend| is_at(backend, at));
    let before = place.and_then(|place| vip.spec.backends.get(place)).cloned();
    let after = what(before.as_ref())?;
    match (place, after) {
        (Some(place), Some(after)) => {
            vip.spec.backends.splice(place..=place, [after]).for_each(drop);
        }
        (Some(place), None) => drop(vip.spec.backends.remove(place)),
        (None, Some(after)) => vip.spec.backends.push(after),
        (None, None) => {}
    }
    // A revision is the VIP's; whether something is there or not is asked of the backend.
    let expected = match (terms.expected, before.is_some()) {
        (Expected::Nothing, true) => {
            return Ok(Err(Refusal::Exists(format!("backend {at} of VIP {name}"))));
        }
        (Expected::Something, false) => {
            return Ok(Err(Refusal::Gone(format!("backend {at} of VIP {name}"))));
        }
        (said @ Expected::Revision(_), _) => said,
        (Expected::Any | Expected::Something | Expected::Nothing, _) => {
            vip.metadata.revision.map_or(Expected::Any, Expected::Revision)
        }
    };
    (vip.status, vip.metadata.revision) = (None, None);
    let value = serde_json::to_value(&vip).map_err(|error| Refused::json(&error))?;
    let vip = document(&value, vip::read).map_err(|mistakes| Refused::fields(&mistakes))?;
    let applied = match app.registry.put(vip, Terms { expected, ..terms }).await {
        Ok(applied) => applied,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let status = if before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
    let backend = find(&applied.vip, at).cloned().or(before);
    let backend = backend.ok_or_else(|| Refused::no_backend(name, at))?;
    let tag = etag(&applied.vip.metadata);
    Ok(Ok((status, tag, Json(view(&applied.vip, &backend)))))
}

fn read(body: &Value, at: SocketAddr) -> Result<(Backend, Option<u64>), Refused> {
    let reader = |cursor: &Cursor<'_>| {
        let resource = cursor.object(&["metadata", "spec", "status"])?;
        let revision = match resource.field("metadata") {
            None => Some(None),
            Some(metadata) => {
                let metadata = metadata.object(&["name", "revision"])?;
                if let Some(name) = metadata.field("name")
                    && name.text()?.parse() != Ok(at)
                {
                    return name.wrong(format!("is another name than the path's {at}: use one"));
                }
                match metadata.field("revision") {
                    None => Some(None),
                    Some(revision) => revision.number(1..=u64::MAX).map(Some),
                }
            }
        };
        let spec = resource.required("spec")?;
        let backend = vip::read_backend(&spec, None, None, vip::Ports::Any)?;
        if !is_at(&backend, at) {
            return spec.wrong(format!("is about another backend than the path's {at}: use one"));
        }
        Some((backend, revision?))
    };
    document(body, reader).map_err(|mistakes| Refused::fields(&mistakes))
}

/// A revision of the body is what has to be there.
fn said(terms: Terms, revision: Option<u64>) -> Terms {
    match (terms.expected, revision) {
        (Expected::Any | Expected::Something, Some(revision)) => {
            Terms { expected: Expected::Revision(revision), ..terms }
        }
        _ => terms,
    }
}

fn names(path: Names) -> Result<(String, SocketAddr), Refused> {
    let Path((name, backend)) = path.map_err(|error| Refused::path(&error.body_text()))?;
    let at = backend.parse().map_err(|_| Refused::backend_name(&backend))?;
    Ok((name, at))
}

fn find(vip: &Vip, at: SocketAddr) -> Option<&Backend> {
    vip.spec.backends.iter().find(|backend| is_at(backend, at))
}

fn is_at(backend: &Backend, at: SocketAddr) -> bool {
    SocketAddr::new(backend.address, backend.port) == at
}

fn view(vip: &Vip, backend: &Backend) -> BackendResource {
    let at = SocketAddr::new(backend.address, backend.port);
    let mut all = vip.status.iter().flat_map(|status| &status.backends);
    let status = all.find(|status| SocketAddr::new(status.address, status.port) == at);
    let status = status.map(|found| BackendResourceStatus {
        conditions: vec![healthy(found), takes_flows(backend, found)],
        found: found.clone(),
    });
    let metadata = BackendMetadata { name: at.to_string(), revision: vip.metadata.revision };
    BackendResource { metadata, spec: backend.clone(), status }
}

fn healthy(found: &BackendStatus) -> Condition {
    match found.health {
        Health::Healthy => Condition::new("Healthy", true, "ChecksSucceed", "its checks succeed"),
        Health::Unhealthy => Condition::new("Healthy", false, "ChecksFail", found.message.as_str()),
        Health::Unknown => {
            let why = "not enough checks have spoken yet";
            Condition::new("Healthy", ConditionStatus::Unknown, "NotChecked", why)
        }
    }
}

fn takes_flows(backend: &Backend, found: &BackendStatus) -> Condition {
    let no = |reason: &str, why: &str| Condition::new("TakesFlows", false, reason, why);
    match (backend.disabled, backend.drain, found.health) {
        (true, ..) => no("Disabled", "it is disabled: as if it were not listed"),
        (false, true, _) => no("Drained", "it is drained: `lbctl undrain` ends that"),
        (false, false, Health::Healthy) if found.message.is_empty() => {
            Condition::new("TakesFlows", true, "InUse", "new flows are given to it")
        }
        (false, false, Health::Healthy) => no("Unreached", &found.message),
        (false, false, Health::Unhealthy) => no("ChecksFail", "its checks fail"),
        (false, false, Health::Unknown) => no("NotChecked", "its checks have not spoken yet"),
    }
}
