//! `config`: the configuration as a whole, and what it was before.

use lb_api_types::view::{Changes, History};
use serde_json::Value;

use super::CtlError;
use super::apply::words;
use super::arguments::{Config, Format};
use super::client::Client;
use super::show::{json, typed, yaml};
use super::table::table;

pub(super) async fn carry_out(
    client: &Client,
    what: Config,
    format: Format,
) -> Result<String, CtlError> {
    match what {
        Config::Confirm => {
            client.post("config/confirm", &Value::Null).await?;
            Ok("the configuration is confirmed\n".into())
        }
        Config::Rollback { to, dry_run } => {
            let to = to.map_or(String::new(), |to| format!("&to={to}"));
            let path = format!("config/rollback?dryRun={dry_run}{to}");
            let changes: Changes = typed(client.post(&path, &Value::Null).await?)?;
            Ok(words(&changes.changes, dry_run))
        }
        Config::History => {
            let value = client.get("config/history").await?;
            match format {
                Format::Json => Ok(json(&value)),
                Format::Yaml => yaml(&value),
                Format::Table | Format::Wide => Ok(history(&typed(value)?)),
                Format::Name => {
                    Err(CtlError::Other("these have no names: choose another -o".into()))
                }
            }
        }
    }
}

fn history(history: &History) -> String {
    let row = |(place, generation): (usize, &lb_api_types::view::GenerationView)| {
        [
            generation.revision.to_string(),
            generation.written.clone(),
            generation.vips.to_string(),
            if place == 0 { "yes".into() } else { String::new() },
        ]
    };
    let rows: Vec<_> = history.generations.iter().enumerate().map(row).collect();
    let mut text = table(["REVISION", "WRITTEN", "VIPS", "KEPT"], &rows);
    if let Some(left) = history.rolled_back_in_secs {
        text.push_str(&format!(
            "What holds now is not confirmed, and is rolled back in {left} s: `lbctl config confirm` keeps it\n"
        ));
    }
    text
}
