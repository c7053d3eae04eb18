//! `diff`: what apply would change, line by line.

use std::path::PathBuf;

use lb_api_types::view::{Difference, Differences};
use serde_json::Value;
use similar::TextDiff;

use super::apply::{placed, read_all, whole};
use super::client::Client;
use super::show::{typed, yaml};
use super::{Answer, CtlError};

/// Compares what there is with what lbd would make of the files, which is not what stands in them: it fills in what they
/// leave out. All of them are looked at as one configuration, as apply does.
pub(super) async fn diff(client: &Client, files: &[PathBuf]) -> Result<Answer, CtlError> {
    let resources = read_all(files)?;
    let answer = client.post("config/diff", &whole(&resources)).await;
    let told: Differences = typed(answer.map_err(|error| placed(error, &resources))?)?;
    let mut text = String::new();
    for Difference { kind, name, before, after, .. } in told.differences {
        let page = |value: Option<Value>| value.map_or(Ok(String::new()), |value| yaml(&value));
        text.push_str(&unified(&format!("{kind}/{name}"), &page(before)?, &page(after)?));
    }
    Ok(if text.is_empty() { Answer::Yes(text) } else { Answer::No(text) })
}

/// A VIP without what lbd adds of its own.
pub(super) fn wanted(mut vip: Value) -> Value {
    if let Value::Object(fields) = &mut vip {
        fields.remove("status");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.remove("revision");
        }
    }
    vip
}

fn unified(name: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(before, after);
    diff.unified_diff().header(name, &format!("{name} as applied")).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_the_same_says_nothing_and_a_change_its_lines() {
        assert_eq!(unified("vip/web", "a: 1\n", "a: 1\n"), "");
        let text = unified("vip/web", "a: 1\nb: 2\n", "a: 1\nb: 3\n");
        assert_eq!(
            text,
            "--- vip/web\n+++ vip/web as applied\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n"
        );
        assert!(unified("vip/new", "", "a: 1\n").contains("+a: 1"));
    }

    #[test]
    fn what_lbd_adds_is_no_difference() {
        let vip =
            json!({"metadata": {"name": "web", "revision": 7}, "spec": {"port": 80}, "status": {}});
        assert_eq!(wanted(vip), json!({"metadata": {"name": "web"}, "spec": {"port": 80}}));
    }
}
