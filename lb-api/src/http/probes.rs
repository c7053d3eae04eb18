//! What machines ask for at paths that they know: `/healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use lb_api_types::problem::Problem;
use lb_api_types::resource::{Condition, ConditionStatus};

use super::App;
use super::metrics::{Sample, render};
use super::problem::Refused;
use crate::registry::Refusal;

/// Whether the daemon works: the task that owns the VIPs is there. A daemon that does not is to be restarted.
#[utoipa::path(get, path = "/healthz", tag = "status",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn healthz(State(app): State<App>) -> Result<&'static str, Refused> {
    if app.registry.has_ended() { Err(Refusal::Stopping.into()) } else { Ok("ok\n") }
}

/// Whether traffic can be led here: the fast path is attached to every interface that it is to be on and that is up, and serves
/// the VIPs.
#[utoipa::path(get, path = "/readyz", tag = "status",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, Refused> {
    let status = app.views.status().await.map_err(Refused::unavailable)?.status;
    if status.interfaces.is_empty() {
        let why = "the fast path is attached to no interface: `lbctl doctor` says why";
        return Err(Refused::unavailable(why.into()));
    }
    let is_amiss = |it: &&Condition| it.kind == "Attached" && it.status == ConditionStatus::False;
    if let Some(amiss) = status.conditions.into_iter().find(|it| is_amiss(&it)) {
        return Err(Refused::unavailable(amiss.message));
    }
    match app.registry.first_unserved().await? {
        None => Ok("ok\n"),
        Some(name) => Err(Refused::unavailable(format!(
            "VIP {name} is not served: `lbctl describe vip {name}` says why"
        ))),
    }
}

/// What is counted, as Prometheus reads it.
#[utoipa::path(get, path = "/metrics", tag = "status",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Refused> {
    let flows = app.views.flow_events();
    let streams = || std::iter::once(&app.events).chain(&flows);
    let sample = Sample {
        status: app.views.status().await.map_err(Refused::unavailable)?.status,
        reasons: app.views.reasons().await.map_err(Refused::unavailable)?,
        interfaces: app.views.interfaces().await.map_err(Refused::unavailable)?,
        vips: app.registry.list().await?,
        peers: app.views.peers().await,
        listening: app.views.global().await.listening,
        watchers: streams().map(|it| it.watchers()).sum(),
        overruns: streams().map(|it| it.overruns()).sum(),
        failures: app.access.failures(),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render(&sample)))
}
