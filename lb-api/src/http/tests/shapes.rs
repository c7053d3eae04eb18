//! Every resource has the same shape, as the description says it.

use super::*;

/// What has the shape of a resource, and whether it has labels and revisions of its own: what is only seen has a name, a
/// backend its VIP's, and a token is never changed.
const RESOURCES: [(&str, bool); 22] = [
    ("vips/{name}", true),
    ("vips/{name}/backends/{backend}", false),
    ("pools/{name}", true),
    ("health-checks/{name}", true),
    ("nodes/{name}", true),
    ("bgp/global", true),
    ("bgp/peers/{name}", true),
    ("bgp/peer-groups/{name}", true),
    ("bgp/policies/{name}", true),
    ("bgp/sets/{name}", true),
    ("bgp/routes", false),
    ("addresses/{name}", true),
    ("static-routes/{name}", true),
    ("interfaces/{name}", false),
    ("fib", false),
    ("flows", false),
    ("flows/events", false),
    ("tokens/{name}", false),
    ("config", false),
    ("events", false),
    ("status", false),
    ("version", false),
];

/// The fields of a schema, references and parts followed.
fn fields(document: &Value, schema: &Value) -> serde_json::Map<String, Value> {
    if let Some(place) = schema["$ref"].as_str() {
        return fields(document, document.pointer(&place[1..]).unwrap());
    }
    let parts = ["allOf", "oneOf"].iter().filter_map(|name| schema[name].as_array()).flatten();
    let parts = parts.flat_map(|part| fields(document, part));
    let own = schema["properties"].as_object().cloned().unwrap_or_default();
    own.into_iter().chain(parts).collect()
}

#[test]
fn every_resource_has_metadata_a_spec_and_a_status_with_conditions() {
    let document = serde_json::to_value(document()).unwrap();
    for (path, is_kept) in RESOURCES {
        let answer = &document["paths"][format!("/api/v1/{path}")]["get"]["responses"]["200"];
        let content = answer["content"].as_object().unwrap_or_else(|| panic!("{path}"));
        let (kind, content) = content.iter().next().unwrap();
        let whole = match kind.as_str() {
            // Its data is an event.
            "text/event-stream" => json!({"$ref": "#/components/schemas/Event"}),
            _ => content["schema"].clone(),
        };
        let whole = fields(&document, &whole);
        let whole = match whole.get("items") {
            Some(items) => fields(&document, &items["items"]),
            None => whole,
        };
        let names: Vec<_> = whole.keys().map(String::as_str).collect();
        assert_eq!(names, ["metadata", "spec", "status"], "{path}");
        let metadata = fields(&document, &whole["metadata"]);
        assert!(metadata.contains_key("name"), "{path}: {metadata:?}");
        for field in ["labels", "owner", "revision"] {
            assert!(!is_kept || metadata.contains_key(field), "{path} has no {field}");
        }
        let status = fields(&document, &whole["status"]);
        let conditions = status.get("conditions").unwrap_or_else(|| panic!("{path}: {status:?}"));
        let condition = fields(&document, &conditions["items"]);
        let names: Vec<_> = condition.keys().map(String::as_str).collect();
        assert_eq!(names, ["message", "reason", "status", "type"], "{path}");
    }
}

#[tokio::test]
async fn conditions_say_in_words_what_they_say_to_programs() {
    let served = Served::new(vec![]).await;
    served.put("web", &good("web")).await;
    for path in ["version", "config", "vips/web", "vips/web/backends/10.0.0.1:8080"] {
        let answer = served.get(&format!("/api/v1/{path}")).await.json();
        let conditions = answer["status"]["conditions"].as_array().unwrap().clone();
        assert!(!conditions.is_empty(), "{path}: {answer}");
        for condition in conditions {
            let text = |field: &str| condition[field].as_str().unwrap().to_owned();
            assert!(!text("message").is_empty(), "{path}: {condition}");
            assert!(text("reason").chars().all(char::is_alphanumeric), "{path}: {condition}");
        }
    }
}
