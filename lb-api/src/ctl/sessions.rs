//! What is done to one neighbour's session.

use std::net::IpAddr;

use lb_api_types::peer::Peer;
use serde_json::{Value, json};

use super::CtlError;
use super::arguments::Soft;
use super::client::{Client, segment};
use super::show::all;

/// Ends a session, or has routes told again.
pub(super) async fn clear(
    client: &Client,
    neighbour: &str,
    soft: Option<Soft>,
) -> Result<String, CtlError> {
    let (what, said) = match soft {
        None => ("session", "the session ends, and comes back by itself"),
        Some(Soft::In) => ("in", "the neighbour is asked for its routes again"),
        Some(Soft::Out) => ("out", "the neighbour is told our routes again"),
    };
    let name = name_of(client, neighbour).await?;
    let path = format!("bgp/peers/{}/clear?what={what}", segment(&name));
    client.post(&path, &Value::Null).await?;
    Ok(format!("peer {name}: {said}\n"))
}

/// Ends a session until it is started again; the neighbour is told why (RFC 9003).
pub(super) async fn shut_down(
    client: &Client,
    neighbour: &str,
    message: Option<&str>,
) -> Result<String, CtlError> {
    let spec = json!({"shutdown": true, "shutdown_message": message});
    change(client, neighbour, spec, "shut down, until `lbctl bgp start`").await
}

/// Has a session again.
pub(super) async fn start(client: &Client, neighbour: &str) -> Result<String, CtlError> {
    let spec = json!({"shutdown": false, "shutdown_message": null});
    change(client, neighbour, spec, "started").await
}

/// Has a neighbour take other ways before ours goes (RFC 8326), or take ours again.
pub(super) async fn drain(
    client: &Client,
    neighbour: &str,
    drain: bool,
) -> Result<String, CtlError> {
    let said = if drain { "told that our routes will go soon" } else { "told our routes as usual" };
    change(client, neighbour, json!({"graceful_shutdown": drain}), said).await
}

async fn change(
    client: &Client,
    neighbour: &str,
    spec: Value,
    said: &str,
) -> Result<String, CtlError> {
    let name = name_of(client, neighbour).await?;
    client.patch(&format!("bgp/peers/{}", segment(&name)), &json!({"spec": spec})).await?;
    Ok(format!("peer {name}: {said}\n"))
}

/// The name of a neighbour that is known by its name or its address.
async fn name_of(client: &Client, neighbour: &str) -> Result<String, CtlError> {
    let Ok(address) = neighbour.parse::<IpAddr>() else { return Ok(neighbour.to_owned()) };
    let peers: Vec<Peer> = all(client.get("bgp/peers").await?)?;
    let at = |peer: &Peer| peer.spec.address.to_canonical() == address.to_canonical();
    let known = peers.into_iter().find(at).map(|peer| peer.metadata.name);
    Ok(known.unwrap_or_else(|| neighbour.to_owned()))
}
