//! The configuration as a whole: applied, confirmed, rolled back.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use lb_api_types::problem::Problem;
use lb_api_types::resource::{NamedHealthCheck, Pool};
use lb_api_types::view::{ChangeKind, Changes, History};
use lb_api_types::vip::Vip;

use super::handlers::read_json;
use super::problem::Refused;
use super::terms::{Asked, bulk, nothing, rollback};
use super::{App, MAX_CONFIG};
use crate::read::{Cursor, document};
use crate::registry::Documents;
use crate::resources::Kind;
use crate::store::lists;
use crate::vip;

/// What is to be there; every list may be left out.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(super) struct Configuration {
    /// The VIPs.
    vips: Option<Vec<Vip>>,
    /// Addresses that VIPs are given.
    pools: Option<Vec<Pool>>,
    /// Health checks that VIPs name.
    health_checks: Option<Vec<NamedHealthCheck>>,
}

/// Creates or replaces many resources in one change: all of them or none. With `prune`, what was made over REST, has the
/// same owner (or none, where none is said) and is not named is removed.
#[utoipa::path(post, path = "/api/v1/config", tag = "config",
    params(("dryRun" = Option<bool>, Query, description = "Only say what would become of it"),
        ("confirmWithin" = Option<u32>, Query, minimum = 1, maximum = 3600,
            description = "Seconds; unless it is confirmed by then, everything is as it was before. Other changes are refused meanwhile"),
        ("owner" = Option<String>, Query, description = "Becomes the owner of what is named, and says whose resources are pruned"),
        ("prune" = Option<bool>, Query, description = "Remove what the owner has and is not named")),
    request_body = Configuration,
    responses((status = 200, body = Changes),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "The body is slow"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another VIP has an address, port and protocol, one comes from the configuration file, or another configuration waits to be confirmed"),
        (status = 412, body = Problem, content_type = "application/problem+json",
            description = "A metadata.revision is not what is there"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "More than 64 MiB"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "No JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses"),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "Too many VIPs")))]
pub(super) async fn apply_config(
    State(app): State<App>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Changes>, Refused> {
    let bulk = bulk(&asked)?;
    // Before the body is read: many large ones at once would not fit into memory. It is never closed.
    let _turn = app.applying.acquire().await.ok();
    let body = read_json(&headers, body, "application/json", MAX_CONFIG).await?;
    let documents = document(&body, read).map_err(|mistakes| Refused::fields(&mistakes))?;
    let (within, dry_run) = (bulk.confirm_within, bulk.dry_run);
    let applied = app.registry.apply(documents, bulk).await;
    let changes = applied.map_err(|(place, refusal)| {
        let refused = Refused::from(refusal);
        match place {
            None => refused,
            Some(place) => refused.below(&place.to_string()),
        }
    })?;
    let touched = changes.iter().any(|change| change.change != ChangeKind::Unchanged);
    let within = within.filter(|_| touched && !dry_run);
    let confirm_within_secs = within.and_then(|within| u32::try_from(within.as_secs()).ok());
    Ok(Json(Changes { changes, confirm_within_secs }))
}

fn read(cursor: &Cursor<'_>) -> Option<Documents> {
    let kinds = Kind::ALL.iter().map(|kind| kind.many());
    let all = cursor.object(&kinds.chain(["vips"]).collect::<Vec<_>>())?;
    let vips = all.field("vips").map_or_else(|| Some(Vec::new()), |list| list.list(vip::read));
    let resources = lists(&all);
    Some(Documents { vips: vips?, resources: resources? })
}

/// Keeps the configuration that was applied with `confirmWithin`.
#[utoipa::path(post, path = "/api/v1/config/confirm", tag = "config",
    responses((status = 204),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Nothing waits to be confirmed"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The disk refuses, and everything is as it was before")))]
pub(super) async fn confirm_config(
    State(app): State<App>,
    asked: Asked,
) -> Result<StatusCode, Refused> {
    nothing(&asked)?;
    app.registry.confirm().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Goes back: from a configuration that waits to be confirmed to what was before it, otherwise to one that was kept.
#[utoipa::path(post, path = "/api/v1/config/rollback", tag = "config",
    params(("to" = Option<u64>, Query, description = "The revision of what is gone back to, as the history says it; the one before by default"),
        ("dryRun" = Option<bool>, Query, description = "Only say what would become of it")),
    responses((status = 200, body = Changes),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It is not kept"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "A VIP of it clashes with the configuration file, or another configuration waits to be confirmed"),
        (status = 503, body = Problem, content_type = "application/problem+json",
            description = "The dataplane or the disk refuses")))]
pub(super) async fn rollback_config(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<Changes>, Refused> {
    let (to, dry_run) = rollback(&asked)?;
    let changes = app.registry.rollback(to, dry_run).await?;
    Ok(Json(Changes { changes, confirm_within_secs: None }))
}

/// What is and was kept, and whether something waits to be confirmed.
#[utoipa::path(get, path = "/api/v1/config/history", tag = "config",
    responses((status = 200, body = History),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn config_history(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<History>, Refused> {
    nothing(&asked)?;
    Ok(Json(app.registry.history().await?))
}
