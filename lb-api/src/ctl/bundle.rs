//! `bundle`: what a bug report needs, as one JSON document.
//!
//! Deliberately absent: tokens, and the files of keys; the daemon tells nobody what is in them.

use serde_json::{Map, Value, json};

use super::CtlError;
use super::client::Client;
use super::events;
use crate::resources::Kind;

/// Items of each of the long lists.
const MOST: usize = 1000;

/// Asks for everything; what cannot be told is told as why.
pub(super) async fn bundle(client: &Client) -> Result<String, CtlError> {
    // A daemon that does not answer at all is no bundle.
    let version = client.get("version").await?;
    let mut all = Map::new();
    all.insert("lbctl".into(), json!(env!("CARGO_PKG_VERSION")));
    all.insert("lbd".into(), version);
    let short =
        ["status", "doctor", "interfaces", "bgp/global", "bgp/peers", "vips", "config/history"];
    let short = short.iter().map(|path| ((*path).to_owned(), (*path).to_owned()));
    let kinds = Kind::ALL.iter().map(|kind| (kind.path().to_owned(), kind.path().to_owned()));
    let long = ["bgp/routes", "fib", "flows"].iter();
    let long = long.map(|path| ((*path).to_owned(), format!("{path}?limit={MOST}")));
    for (name, path) in short.chain(kinds).chain(long) {
        let told = client.get(&path).await;
        all.insert(name, told.unwrap_or_else(|error| json!({"error": error.to_string()})));
    }
    let happened = events::past(client).await;
    let happened =
        happened.map_or_else(|error| json!({"error": error.to_string()}), |all| json!(all));
    all.insert("events".into(), happened);
    let metrics = client.metrics().await;
    let metrics =
        metrics.map_or_else(|error| json!({"error": error.to_string()}), |text| json!(text));
    all.insert("metrics".into(), metrics);
    Ok(format!("{:#}\n", Value::Object(all)))
}
