//! JSON Schema (2020-12) of lbd's file, of whole configurations and of every resource: what editors and pipelines check files
//! with.

use lb_api_types::config::Config;
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::document;

const COMPONENTS: &str = "#/components/schemas/";

/// The schema of lbd's file. What `POST /api/v1/config` takes (`Configuration`), which is a part of it, and single resources
/// are its definitions. OpenAPI 3.1 has the same language, so only references change.
pub fn schema() -> Value {
    let document = serde_json::to_value(document()).unwrap_or_default();
    let mut definitions = document.pointer("/components/schemas").cloned().unwrap_or_default();
    let mut of_file = vec![(Config::name().into_owned(), Config::schema())];
    Config::schemas(&mut of_file);
    for (name, schema) in of_file {
        definitions[name] = serde_json::to_value(schema).unwrap_or_default();
    }
    point_at_definitions(&mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lbd",
        "$ref": "#/$defs/File",
        "$defs": definitions,
    })
}

fn point_at_definitions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(place)) = fields.get_mut("$ref")
                && let Some(name) = place.strip_prefix(COMPONENTS)
            {
                *place = format!("#/$defs/{name}");
            }
            fields.values_mut().for_each(point_at_definitions);
        }
        Value::Array(all) => all.iter_mut().for_each(point_at_definitions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
