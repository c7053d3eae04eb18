//! The description of the operations that every kind has.

use serde_json::{Value, json};
use utoipa::openapi::path::PathItem;

use super::Collection;
use crate::http::{MAX_LIMIT, patch};

/// The description of a kind's operations: of all of them, and of one.
pub(in crate::http) fn described(of: Collection) -> Vec<(String, PathItem)> {
    let (schema, _) = of.schemas();
    let (many, one) = operations(of, &format!("#/components/schemas/{schema}"));
    let item = |value| serde_json::from_value(value).expect("it is written as OpenAPI says");
    let path = format!("/api/v1/{}", of.path());
    if of.only().is_none() {
        return vec![(path.clone(), item(many)), (format!("{path}/{{name}}"), item(one))];
    }
    let mut only = one;
    for operation in only.as_object_mut().into_iter().flatten().map(|(_, operation)| operation) {
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.retain(|parameter| parameter["in"] != "path");
        }
    }
    vec![(path, item(only))]
}

fn operations(of: Collection, schema: &str) -> (Value, Value) {
    let (word, id) = (of.word(), of.many());
    let problem = |words: &str| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        json!({"description": words, "content": {"application/problem+json": {"schema": schema}}})
    };
    let answer = |words: &str| json!({"description": words, "content": {"application/json": {"schema": {"$ref": schema}}}});
    let query = |name: &str, schema: Value, words: &str| json!({"name": name, "in": "query", "required": false, "schema": schema, "description": words});
    let header = |name: &str, pattern: &str, words: &str| {
        let schema = json!({"type": "string", "pattern": pattern});
        json!({"name": name, "in": "header", "required": false, "schema": schema, "description": words})
    };
    let path = json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"},
        "description": format!("The {word}'s name, as in metadata.name")});
    let dry_run = query("dryRun", json!({"type": "boolean"}), "Only say what would become of it");
    let if_match = header(
        "If-Match",
        "^([*]|\"[0-9]{1,19}\")$",
        "The revision that is replaced, in quotes, or * for any",
    );
    let if_none = header("If-None-Match", "^[*]$", "* creates only");
    let missing = problem("There is none of this name");
    let conflict = problem(
        "It comes from the configuration file, another one has its address or needs it as it is, or a configuration waits to be confirmed",
    );
    let stale = problem("A precondition or metadata.revision is not what is there");
    let body = |kind: &str, schema: Value| json!({"required": true, "content": {kind: {"schema": schema}}});
    let writes = json!({
        "200": answer("It was there before"), "409": conflict, "412": stale,
        "503": problem("The dataplane or the disk refuses"),
    });
    let with = |more: Value| {
        let mut all = writes.clone();
        patch::merge(&mut all, more);
        all
    };
    let list = json!({"type": "object", "required": ["items"], "properties": {
        "items": {"type": "array", "items": {"$ref": schema}},
        "truncated": {"type": "boolean"}, "next": {"type": ["string", "null"]}}});
    let listed = json!({"description": "", "content": {"application/json": {"schema": list}}});
    let many = json!({"get": {
        "tags": [id], "operationId": format!("list_{id}"), "summary": format!("Every {word} by name, with its status."),
        "parameters": [
            query("limit", json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}), "Items at most; all by default"),
            query("cursor", json!({"type": "string"}), "What the page before says as `next`"),
            query("labelSelector", json!({"type": "string"}), "Only those with such labels: app=web,tier!=test,canary,!old"),
        ],
        "responses": {"200": listed},
    }});
    let one = json!({
        "get": {"tags": [id], "operationId": format!("get_{id}"),
            "summary": format!("A {word} with its status. The header ETag is its revision, for If-Match."),
            "parameters": [path], "responses": {"200": answer("It"), "404": missing}},
        "put": {"tags": [id], "operationId": format!("put_{id}"),
            "summary": format!("Creates or replaces a {word}. The answer comes when it is kept and carried out; on an error nothing changes."),
            "parameters": [path, dry_run, if_match, if_none],
            "requestBody": body("application/json", json!({"$ref": schema})),
            "responses": with(json!({"201": answer("It is new"), "507": problem("Too many of the kind")}))},
        "patch": {"tags": [id], "operationId": format!("patch_{id}"),
            "summary": format!("Changes fields of a {word} by a JSON Merge Patch (RFC 7396): null takes a field away, a list is replaced as a whole."),
            "parameters": [path, dry_run, if_match],
            "requestBody": body("application/merge-patch+json", json!({"type": "object"})),
            "responses": with(json!({"404": missing}))},
        "delete": {"tags": [id], "operationId": format!("delete_{id}"), "summary": format!("Removes a {word}."),
            "parameters": [path, dry_run, if_match],
            "responses": {"204": {"description": "It is gone"}, "404": missing, "409": conflict, "412": stale,
                "503": problem("The disk refuses")}},
    });
    (many, one)
}
