//! Whether the eBPF maps of services hold what is asked for.

use axum::Json;
use axum::extract::State;
use lb_api_types::view::ServiceAuditView;

use super::App;
use super::problem::Refused;
use super::terms::{Asked, nothing};

/// Holds the eBPF maps of services, backends and rings against what is asked for, entry by entry. Changes wait meanwhile, one
/// audit at a time; packets do not notice.
#[utoipa::path(get, path = "/api/v1/services/audit", tag = "dataplane",
    responses((status = 200, body = ServiceAuditView)))]
pub(super) async fn audit_services(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<ServiceAuditView>, Refused> {
    nothing(&asked)?;
    app.views.service_audit(false).await.map(Json).map_err(Refused::unavailable)
}

/// The same, and what differs is written again.
#[utoipa::path(post, path = "/api/v1/services/repair", tag = "dataplane",
    responses((status = 200, body = ServiceAuditView)))]
pub(super) async fn repair_services(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<ServiceAuditView>, Refused> {
    nothing(&asked)?;
    app.views.service_audit(true).await.map(Json).map_err(Refused::unavailable)
}
