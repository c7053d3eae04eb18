//! The schema of the file says what its reader takes.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::http::schema;

/// Whether a value is as a schema says, by those of JSON Schema's words that ours uses; the error is where it is not.
fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let one = |schema: &Value| fits(root, schema, value, at);
    if let Some(place) = schema["$ref"].as_str() {
        one(root.pointer(&place[1..]).ok_or_else(|| format!("{place} is not defined"))?)?;
    }
    let parts = |word: &str| schema[word].as_array().cloned().unwrap_or_default();
    parts("allOf").iter().try_for_each(one)?;
    let ways: Vec<_> = parts("oneOf").iter().map(one).collect();
    if !ways.is_empty() && ways.iter().filter(|way| way.is_ok()).count() != 1 {
        return Err(format!("{at} is of none or several: {ways:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = [parts("type"), vec![schema["type"].clone()]].concat();
    if !schema["type"].is_null() && !kinds.contains(&json!(kind)) {
        return Err(format!("{at} is {kind}, not {}", schema["type"]));
    }
    let (known, enough) = (parts("enum"), |bound: &str| schema[bound].as_u64());
    let number = value.as_u64();
    let low = number.zip(enough("minimum")).is_some_and(|(number, least)| number < least);
    let high = number.zip(enough("maximum")).is_some_and(|(number, most)| number > most);
    if !(known.is_empty() || known.contains(value)) || low || high {
        return Err(format!("{at} is {value}, which is none of what it may be: {schema}"));
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(root, &schema["items"], item, &format!("{at}/{place}"))?;
    }
    let Value::Object(fields) = value else { return Ok(()) };
    if let Some(lacks) = parts("required")
        .iter()
        .find(|name| name.as_str().is_some_and(|name| !fields.contains_key(name)))
    {
        return Err(format!("{at} lacks {lacks}"));
    }
    for (name, value) in fields {
        let (at, others) = (format!("{at}/{name}"), &schema["additionalProperties"]);
        match schema["properties"].get(name) {
            Some(schema) => fits(root, schema, value, &at)?,
            None if *others == json!(false) => return Err(format!("{at} is not known")),
            None => fits(root, others, value, &at)?,
        }
    }
    Ok(())
}

fn file(text: &str) -> Result<(), String> {
    let (root, value) = (schema(), yaml::document(text).map_err(|broken| broken.to_string())?);
    fits(&root, &root, &value, "")
}

#[test]
fn the_example_file_is_as_the_schema_says_as_it_stands_and_with_every_line_uncommented() {
    let text = include_str!("../../../lbd.example.yaml");
    assert_eq!(file(text), Ok(()));
    assert_eq!(file(&uncommented(text)), Ok(()));
    let whole =
        "bgp: { sets: [{ metadata: { name: pods }, spec: { prefixes: [10.244.0.0/16] } }] }\n";
    assert_eq!(file(whole), Ok(()), "and what BGP names as every resource is written");
    for wrong in [
        "colour: red",
        "state_dir: 3",
        "dataplane: { interface: [eth0] }",
        "dataplane: { hook: both }",
        "api: { tls: { key_file: /a } }",
        "api: { users: [{ user: alice, role: root }] }",
        "bgp: { peers: [{ asn: 65001 }] }",
        "vips: [{ metadata: { name: web }, spec: { port: 80 } }]",
    ] {
        assert!(file(wrong).is_err() && check("x", wrong).is_err(), "{wrong}");
    }
}

/// The fields that the reader knows at a place, which it says of one that nobody knows.
fn known_to_reader(text: &str) -> BTreeSet<String> {
    let report = check("x", text).unwrap_err();
    let lists = report.mistakes.iter().find_map(|(_, mistake)| {
        Some(mistake.message.split_once("the fields here are ")?.1.to_owned())
    });
    lists.unwrap_or_else(|| panic!("{report}")).split(", ").map(str::to_owned).collect()
}

#[test]
fn schema_and_reader_know_the_same_fields() {
    let root = schema();
    for (name, text) in [
        ("File", "0: 0"),
        ("Dataplane", "dataplane: {0: 0}"),
        ("Timeouts", "dataplane: {timeouts: {0: 0}}"),
        ("Api", "api: {0: 0}"),
        ("SocketUser", "api: {users: [{0: 0}]}"),
        ("Tls", "api: {tls: {0: 0}}"),
        ("TlsClient", "api: {listen: '127.0.0.1:1', tls: {client_ca_file: /a, clients: [{0: 0}]}}"),
        ("Bgp", "bgp: {0: 0}"),
        ("Decision", "bgp: {decision: {0: 0}}"),
        ("MaxPrefixes", "bgp: {peer_groups: [{name: a, max_prefixes: {0: 0}}]}"),
        ("BgpStatement", "bgp: {policies: [{name: a, statements: [{0: 0}]}]}"),
        ("Conditions", "bgp: {policies: [{name: a, statements: [{match: {0: 0}}]}]}"),
        ("RouteChanges", "bgp: {policies: [{name: a, statements: [{set: {0: 0}}]}]}"),
        ("VipSpec", "vips: [{metadata: {name: a}, spec: {0: 0}}]"),
        ("Backend", "vips: [{metadata: {name: a}, spec: {backends: [{0: 0}]}}]"),
        ("Nat", "vips: [{metadata: {name: a}, spec: {nat: {0: 0}}}]"),
        ("PoolSpec", "pools: [{metadata: {name: a}, spec: {0: 0}}]"),
        ("NodeSpec", "nodes: [{metadata: {name: a}, spec: {0: 0}}]"),
        ("AddressSpec", "addresses: [{metadata: {name: a}, spec: {0: 0}}]"),
    ] {
        let text = text.replace("0: 0", "0123456789: 0");
        let described = root["$defs"][name]["properties"].as_object();
        let described = described.unwrap_or_else(|| panic!("{name} is described"));
        let described: BTreeSet<String> = described.keys().cloned().collect();
        assert_eq!(described, known_to_reader(&text), "{name}");
    }
}

#[test]
fn schema_and_reader_have_the_same_bounds() {
    let root = schema();
    let within = |path: &str, number: u64| {
        let text =
            path.split('.').rev().fold(number.to_string(), |all, one| format!("{{{one}: {all}}}"));
        check("x", &text).is_ok()
    };
    for (name, path) in [("Dataplane", "dataplane"), ("Timeouts", "dataplane.timeouts")] {
        let fields = root["$defs"][name]["properties"].as_object().unwrap();
        let mut bounded = 0;
        for (field, schema) in fields {
            let Some(most) = schema["maximum"].as_u64() else { continue };
            let (least, path) = (schema["minimum"].as_u64().unwrap(), format!("{path}.{field}"));
            assert!(within(&path, least) && within(&path, most), "{path}");
            assert!(!within(&path, least - 1) && !within(&path, most + 1), "{path}");
            bounded += 1;
        }
        assert!(bounded > 8, "{name}: {bounded}");
    }
}
