//! Tokens, which let programs and people in beyond the Unix socket.

use lb_api_types::access::Token;
use lb_api_types::resource::ConditionStatus;
use serde_json::{Map, json};

use super::CtlError;
use super::apply::dry;
use super::arguments::NewToken;
use super::client::{Client, segment};
use super::show::typed;
use super::table::{or_dash, table};

const DAY_SECS: u64 = 86_400;

/// Makes one, and writes it where a file may take it.
pub(super) async fn create(client: &Client, new: &NewToken) -> Result<String, CtlError> {
    let mut spec = Map::new();
    spec.insert("role".into(), json!(new.role));
    if let Some(days) = new.expires_in {
        spec.insert("expires_in_secs".into(), json!(days * DAY_SECS));
    }
    let body = json!({"metadata": {"name": new.name}, "spec": spec});
    let made: Token = typed(client.post("tokens", &body).await?)?;
    eprintln!("token {} created; it is shown only now", made.metadata.name);
    let token = made.status.and_then(|status| status.token).unwrap_or_default();
    Ok(format!("{token}\n"))
}

pub(super) async fn delete(client: &Client, name: &str, dry_run: bool) -> Result<String, CtlError> {
    if dry_run {
        client.get(&format!("tokens/{}", segment(name))).await?;
    } else {
        client.delete(&format!("tokens/{}", segment(name))).await?;
    }
    Ok(format!("token {name} deleted{}\n", dry(dry_run)))
}

pub(super) fn columns(tokens: &[Token]) -> String {
    let row = |token: &Token| {
        let status = token.status.as_ref();
        let valid = status.and_then(|status| status.conditions.first());
        let expired = valid.is_some_and(|valid| valid.status == ConditionStatus::False);
        let expires = status.and_then(|status| status.expires.clone());
        let expires = expires.map(|at| if expired { format!("{at} (past)") } else { at });
        let created = status.map(|status| status.created.clone());
        let Token { metadata, spec, .. } = token;
        [metadata.name.clone(), spec.role.name().into(), or_dash(created), or_dash(expires)]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    table(["NAME", "ROLE", "CREATED", "EXPIRES"], &rows)
}
