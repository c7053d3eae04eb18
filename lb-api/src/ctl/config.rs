//! `config`: the configuration as a whole, and what it was before.

use lb_api_types::resource::Condition;
use lb_api_types::view::{Changes, History, RunningConfig};
use serde_json::Value;

use super::CtlError;
use super::apply::words;
use super::arguments::{Config, Format};
use super::client::Client;
use super::show::{json, typed, yaml};
use super::table::table;
use crate::resources::Kind;

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

/// The running configuration in short: how much there is of each kind, and how it is.
pub(super) fn running(config: &RunningConfig) -> String {
    let whole = serde_json::to_value(&config.spec).unwrap_or_default();
    let row = |kind: &str, section: &str, of_file: usize| {
        let many = whole.pointer(&format!("/{section}")).and_then(Value::as_array);
        [kind.to_owned(), many.map_or(0, Vec::len).to_string(), of_file.to_string()]
    };
    let of_file = |noun: &str| {
        let all = config.status.of_file.iter();
        all.filter(|said| said.split('/').next() == Some(noun)).count()
    };
    let kinds = Kind::ALL.iter().filter(|kind| kind.only().is_none());
    let kinds = kinds.map(|kind| row(kind.path(), kind.section(), of_file(&kind.noun())));
    let rows: Vec<_> = kinds.chain([row("vips", "vips", of_file("vip"))]).collect();
    let mut text = table(["KIND", "RESOURCES", "OF THE FILE"], &rows);
    text.push_str(&format!("\nRevision: {}\n", config.metadata.revision));
    for Condition { kind, status, reason, message } in &config.status.conditions {
        text.push_str(&format!("{kind}: {status:?} ({reason}): {message}\n"));
    }
    text
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
