//! `doctor`: what stands in the way.

use std::fmt::Write;

use lb_api_types::view::{Check, CheckState, Doctor};

use super::arguments::Format;
use super::client::Client;
use super::show::{json, typed, yaml};
use super::table::or_dash;
use super::{Answer, CtlError};

/// Shows what was looked at; the answer is no where something was found.
pub(super) async fn doctor(client: &Client, format: Format) -> Result<Answer, CtlError> {
    let value = client.get("doctor").await?;
    let doctor: Doctor = typed(value.clone())?;
    let text = match format {
        Format::Json => json(&value),
        Format::Yaml => yaml(&value)?,
        Format::Table | Format::Wide | Format::Name => page(&doctor),
    };
    Ok(if doctor.healthy { Answer::Yes(text) } else { Answer::No(text) })
}

/// The worst last, where people look first.
fn page(doctor: &Doctor) -> String {
    let mut checks: Vec<_> = doctor.checks.iter().collect();
    checks.sort_by_key(|check| check.state);
    let mut text = String::new();
    for Check { name, subject, state, message, remedy } in checks {
        let subject = or_dash(subject.clone());
        let _infallible = writeln!(text, "{:<8} {name:<16} {subject:<10} {message}", word(*state));
        if !remedy.is_empty() {
            let _infallible = writeln!(text, "{:<8} {:<16} {:<10} remedy: {remedy}", "", "", "");
        }
    }
    text
}

fn word(state: CheckState) -> &'static str {
    match state {
        CheckState::Ok => "ok",
        CheckState::Unknown => "unknown",
        CheckState::Warning => "warning",
        CheckState::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_stands_last_and_remedies_below() {
        let check = |name: &str, state, remedy: &str| Check {
            name: name.into(),
            subject: None,
            state,
            message: format!("{name} it is"),
            remedy: remedy.into(),
        };
        let checks = vec![
            check("a", CheckState::Error, "do this"),
            check("b", CheckState::Ok, ""),
            check("c", CheckState::Warning, "do that"),
        ];
        let text = page(&Doctor { healthy: false, checks });
        let words: Vec<_> = text.lines().map(|l| l.split_whitespace().next().unwrap()).collect();
        assert_eq!(words, ["ok", "warning", "remedy:", "error", "remedy:"]);
        assert!(text.ends_with("remedy: do this\n"));
    }
}
