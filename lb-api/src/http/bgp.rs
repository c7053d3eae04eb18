//! BGP's sessions and routes: what is done and asked beside the resources.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnetwork::IpNetwork;
use lb_api_types::problem::Problem;
use lb_api_types::view::{ClearWhat, Explanation};

use super::App;
use super::handlers::Name;
use super::problem::Refused;
use super::terms::{Asked, name};
use crate::registry::Refusal;
use crate::resources::{Key, Kind, Resource};

/// Clears a neighbour's session: ends it (`what=session`, the default), or has its routes told again, ours to it
/// (`what=out`) or its to us (`what=in`), without ending it.
#[utoipa::path(post, path = "/api/v1/bgp/peers/{name}/clear", tag = "peers",
    params(("name" = String, Path, description = "The neighbour's name"),
        ("what" = Option<String>, Query, description = "session, the default, in or out")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn clear_peer(
    State(app): State<App>,
    path: Name,
    asked: Asked,
) -> Result<StatusCode, Refused> {
    let key = Key(Kind::Peer, name(path)?);
    let mut what = ClearWhat::Session;
    for (field, value) in &asked.0 {
        what = match (field.as_str(), value.as_str()) {
            ("what", "session") => ClearWhat::Session,
            ("what", "in") => ClearWhat::In,
            ("what", "out") => ClearWhat::Out,
            _ => {
                let known = "only what is known here: session, in or out";
                return Err(Refused::query(&format!("{field}={value}"), known));
            }
        };
    }
    let unknown = || Refused::from(Refusal::Unknown(key.to_string()));
    let Resource::Peer(peer) = app.registry.get_resource(&key).await? else {
        return Err(unknown());
    };
    match app.views.clear(peer.spec.address, what).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}

/// Which paths a prefix has, the best one first, and what keeps it from which neighbour.
#[utoipa::path(get, path = "/api/v1/bgp/explain", tag = "bgp",
    params(("prefix" = String, Query, description = "The prefix, such as 10.0.0.0/8")),
    responses((status = 200, body = Explanation),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn explain(
    State(app): State<App>,
    asked: Asked,
) -> Result<Json<Explanation>, Refused> {
    const KNOWN: &str = "it has to be one prefix without host bits, such as 10.0.0.0/8";
    let [(field, value)] = asked.0.as_slice() else {
        return Err(Refused::query("", &format!("say prefix: {KNOWN}")));
    };
    let prefix = value.contains('/').then(|| value.parse::<IpNetwork>().ok()).flatten();
    let prefix = prefix.filter(|prefix| field == "prefix" && prefix.ip() == prefix.network());
    let Some(prefix) = prefix else {
        return Err(Refused::query(&format!("{field}={value}"), KNOWN));
    };
    app.views.explain(prefix).await.map(Json).map_err(Refused::unavailable)
}
