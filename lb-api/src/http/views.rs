//! What the host and the daemon are: interfaces, version, schema.

use axum::Json;
use axum::extract::State;
use lb_api_types::problem::Problem;
use lb_api_types::resource::Condition;
use lb_api_types::view::{Interface, List, Nothing, SeenMetadata, Version, VersionStatus};
use serde_json::Value;

use super::App;
use super::handlers::Name;
use super::problem::Refused;
use super::terms::{Asked, name, nothing};
use crate::registry::Refusal;

/// The host's interfaces by name, and whether the fast path is attached.
#[utoipa::path(get, path = "/api/v1/interfaces", tag = "dataplane",
    responses((status = 200, body = List<Interface>)))]
pub(super) async fn list_interfaces(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<Interface>>, Refused> {
    nothing(&asked)?;
    let items = app.views.interfaces().await.map_err(Refused::unavailable)?;
    Ok(Json(List { items, truncated: false, next: None }))
}

/// An interface of the host.
#[utoipa::path(get, path = "/api/v1/interfaces/{name}", tag = "dataplane",
    params(("name" = String, Path, description = "The interface's name")),
    responses((status = 200, body = Interface),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_interface(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<Json<Interface>, Refused> {
    nothing(&asked)?;
    let name = name(path)?;
    let all = app.views.interfaces().await.map_err(Refused::unavailable)?;
    let found = all.into_iter().find(|interface| interface.metadata.name == name);
    found.map(Json).ok_or_else(|| Refusal::Unknown(format!("interface {name}")).into())
}

/// The daemon's version.
#[utoipa::path(get, path = "/api/v1/version", tag = "status",
    responses((status = 200, body = Version)))]
pub(super) async fn get_version(asked: Asked) -> Result<Json<Version>, Refused> {
    nothing(&asked)?;
    let status = VersionStatus {
        conditions: vec![current()],
        version: env!("CARGO_PKG_VERSION").into(),
        api: "v1".into(),
    };
    Ok(Json(Version { metadata: SeenMetadata::of("lbd"), spec: Nothing {}, status }))
}

/// Whether the program that runs is still there under its name: an upgrade replaces the file, and takes hold with a restart.
pub(crate) fn current() -> Condition {
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    match program.to_string_lossy().strip_suffix(" (deleted)") {
        None => Condition::new("Current", true, "Runs", "what is installed is what runs"),
        Some(path) => {
            let why = format!("{path} is another program by now: restart lbd to run it");
            Condition::new("Current", false, "Replaced", why)
        }
    }
}

/// JSON Schema of whole configurations and of every resource.
#[utoipa::path(get, path = "/api/v1/schema.json", tag = "status",
    responses((status = 200, description = "JSON Schema 2020-12", content_type = "application/json"),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_schema(asked: Asked) -> Result<Json<Value>, Refused> {
    nothing(&asked)?;
    Ok(Json(super::schema()))
}
