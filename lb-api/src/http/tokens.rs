//! Tokens: made, listed and removed by admins.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use lb_api_types::access::{Token, TokenSpec};
use lb_api_types::event::EventKind;
use lb_api_types::problem::Problem;
use lb_api_types::view::List;

use super::App;
use super::guard::Noted;
use super::handlers::{Name, json};
use super::problem::Refused;
use super::terms::{Asked, name, nothing};
use crate::access::{Access, TokenError};
use crate::config::api::ROLES;
use crate::read::{Cursor, document};
use crate::vip;

/// How long a token may live at most: a hundred years.
const MAX_EXPIRY_SECS: u64 = 100 * 366 * 86_400;

/// Every token by name, without what it is known by.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, body = List<Token>)))]
pub(super) async fn list_tokens(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<List<Token>>, Refused> {
    nothing(&asked)?;
    let items = app.access.tokens.list(SystemTime::now());
    Ok(Json(List { items, truncated: false, next: None }))
}

/// A token, without what it is known by.
#[utoipa::path(get, path = "/api/v1/tokens/{name}", tag = "access",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 200, body = Token),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_token(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<Json<Token>, Refused> {
    nothing(&asked)?;
    Ok(Json(app.access.tokens.get(&name(path)?, SystemTime::now())?))
}

/// Makes a token. The answer is the only place where it is ever shown.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access",
    request_body = Token,
    responses((status = 201, body = Token),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is taken"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The disk refuses"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many tokens")))]
pub(super) async fn make_token(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Refused> {
    nothing(&asked)?;
    let body = json(&headers, body, "application/json").await?;
    let (name, spec) = document(&body, read).map_err(|mistakes| Refused::fields(&mistakes))?;
    let noted = Noted(format!("{name}, {}", spec.role.name()));
    let make = move |access: &Access| access.tokens.make(&name, spec, SystemTime::now());
    let made = with_disk(&app, make).await?;
    tell(&app, EventKind::ResourceCreated, &made.metadata.name, "created");
    Ok((StatusCode::CREATED, Extension(noted), Json(made)))
}

/// Removes a token: from now on it is not taken.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "access",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The disk refuses")))]
pub(super) async fn delete_token(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<StatusCode, Refused> {
    nothing(&asked)?;
    let name = name(path)?;
    let gone = name.clone();
    with_disk(&app, move |access| access.tokens.remove(&gone)).await?;
    tell(&app, EventKind::ResourceDeleted, &name, "removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Tells who watches events what became of a token.
fn tell(app: &App, kind: EventKind, name: &str, what: &str) {
    app.events.tell(kind, format!("tokens/{name}"), format!("token {name} {what}"));
}

fn read(cursor: &Cursor<'_>) -> Option<(String, TokenSpec)> {
    let token = cursor.object(&["metadata", "spec", "status"])?;
    let name = token.required("metadata").and_then(|metadata| {
        let metadata = metadata.object(&["name"])?;
        metadata.required("name").and_then(|name| vip::name(&name))
    });
    let spec = token.required("spec").and_then(|spec| {
        let spec = spec.object(&["role", "expires_in_secs"])?;
        let role = spec.required("role").and_then(|role| role.one_of(ROLES));
        let expires_in_secs = match spec.field("expires_in_secs") {
            None => Some(None),
            Some(seconds) => seconds.number(1..=MAX_EXPIRY_SECS).map(Some),
        };
        Some(TokenSpec { role: role?, expires_in_secs: expires_in_secs? })
    });
    Some((name?, spec?))
}

async fn with_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Access) -> Result<T, TokenError> + Send + 'static,
) -> Result<T, Refused> {
    let access = Arc::clone(&app.access);
    let done = tokio::task::spawn_blocking(move || work(&access)).await;
    Ok(done.map_err(|error| Refused::unavailable(error.to_string()))??)
}
