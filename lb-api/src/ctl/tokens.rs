//! Tokens, which let programs and people in beyond the Unix socket.

use lb_api_types::access::{MadeToken, TokenView};
use serde_json::{Map, Value, json};

use super::CtlError;
use super::apply::dry;
use super::arguments::NewToken;
use super::client::{Client, segment};
use super::show::typed;
use super::table::{or_dash, table};

const DAY_SECS: u64 = 86_400;

/// Makes one, and writes it where a file may take it.
pub(super) async fn create(client: &Client, new: &NewToken) -> Result<String, CtlError> {
    let mut body = Map::new();
    body.insert("name".into(), json!(new.name));
    body.insert("role".into(), json!(new.role));
    if let Some(days) = new.expires_in {
        body.insert("expires_in_secs".into(), json!(days * DAY_SECS));
    }
    let made: MadeToken = typed(client.post("tokens", &Value::Object(body)).await?)?;
    eprintln!("token {} created; it is shown only now", made.name);
    Ok(format!("{}\n", made.token))
}

pub(super) async fn delete(client: &Client, name: &str, dry_run: bool) -> Result<String, CtlError> {
    if dry_run {
        let value = client.get("tokens").await?;
        let all = super::show::items::<TokenView>(value)?;
        if !all.iter().any(|token| token.name == name) {
            return Err(CtlError::Other(format!("there is no token {name}")));
        }
    } else {
        client.delete(&format!("tokens/{}", segment(name))).await?;
    }
    Ok(format!("token {name} deleted{}\n", dry(dry_run)))
}

pub(super) fn columns(tokens: &[TokenView]) -> String {
    let row = |token: &TokenView| {
        let expires = match (&token.expires, token.expired) {
            (Some(moment), true) => Some(format!("{moment} (past)")),
            (moment, _) => moment.clone(),
        };
        [token.name.clone(), token.role.name().into(), token.created.clone(), or_dash(expires)]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    table(["NAME", "ROLE", "CREATED", "EXPIRES"], &rows)
}
