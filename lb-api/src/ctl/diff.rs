//! `diff`: what apply would change, line by line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use similar::TextDiff;

use super::apply::{Resource, path, read_all};
use super::client::Client;
use super::show::yaml;
use super::{Answer, CtlError};

/// Compares what there is with what lbd would make of the files, which is not what stands in them: it fills in what they
/// leave out.
pub(super) async fn diff(client: &Client, files: &[PathBuf]) -> Result<Answer, CtlError> {
    let resources = read_all(files)?;
    let now = client.get("vips").await?;
    let items = now["items"].as_array().into_iter().flatten();
    let now: BTreeMap<_, _> =
        items.filter_map(|vip| Some((vip.pointer("/metadata/name")?.as_str()?, vip))).collect();
    let mut text = String::new();
    for Resource { name, body } in resources {
        let before = match now.get(name.as_str()) {
            Some(vip) => yaml(&wanted((*vip).clone()))?,
            None => String::new(),
        };
        let (_, after) = client.put(&path(&name, true), &body).await?;
        text.push_str(&unified(&name, &before, &yaml(&wanted(after))?));
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
    let (now, then) = (format!("vip/{name}"), format!("vip/{name} as applied"));
    diff.unified_diff().header(&now, &then).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_the_same_says_nothing_and_a_change_its_lines() {
        assert_eq!(unified("web", "a: 1\n", "a: 1\n"), "");
        let text = unified("web", "a: 1\nb: 2\n", "a: 1\nb: 3\n");
        assert_eq!(
            text,
            "--- vip/web\n+++ vip/web as applied\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n"
        );
        assert!(unified("new", "", "a: 1\n").contains("+a: 1"));
    }

    #[test]
    fn what_lbd_adds_is_no_difference() {
        let vip =
            json!({"metadata": {"name": "web", "revision": 7}, "spec": {"port": 80}, "status": {}});
        assert_eq!(wanted(vip), json!({"metadata": {"name": "web"}, "spec": {"port": 80}}));
    }
}
