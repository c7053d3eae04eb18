use serde_json::json;

use super::*;

fn package(name: &str, licence: &str, dependencies: &[&str]) -> Value {
    let dependencies: Vec<Value> =
        dependencies.iter().map(|name| json!({ "name": name })).collect();
    json!({ "packages": [{ "name": name, "license": licence, "dependencies": dependencies }] })
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn the_workspace_itself_is_tidy() {
    run().unwrap();
}

#[test]
fn a_router_that_sees_the_dataplane_is_found() {
    let found =
        layering(&package("lb-routing", "Apache-2.0", &["lb-routing-proto", "lb-dataplane"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("lb-routing depends on lb-dataplane"), "{found:?}");
}

#[test]
fn a_pure_crate_with_a_runtime_is_found() {
    let found = layering(&package("lb-routing-proto", "Apache-2.0", &["tokio"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("is pure and depends on tokio"), "{found:?}");
}

#[test]
fn a_crate_without_a_place_is_found() {
    let found = layering(&package("lb-extra", "Apache-2.0", &[]));
    assert!(found[0].contains("no place in the layering"), "{found:?}");
}

#[test]
fn a_kernel_crate_under_another_licence_is_found() {
    assert_eq!(licences(&package("lb-dataplane-common", "Apache-2.0", &[])).len(), 1);
    assert_eq!(licences(&package("lb-dataplane-ebpf", KERNEL_LICENCE, &[])).len(), 0);
}

#[test]
fn a_pure_crate_that_asks_the_clock_is_found() {
    let planted =
        source("lb-routing/proto/src/x.rs", "fn f() {\n    let now = Instant::now();\n}\n");
    let found = conventions(&planted);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("lb-routing/proto/src/x.rs:2:"), "{found:?}");
}

#[test]
fn a_mod_rs_an_ignored_test_and_a_long_file_are_found() {
    assert_eq!(conventions(&source("lb-api/src/x/mod.rs", "")).len(), 1);
    assert_eq!(conventions(&source("lb-api/src/x.rs", "    #[ignore = \"slow\"]\n")).len(), 1);
    assert_eq!(conventions(&source("lb-api/src/x.rs", &"x\n".repeat(MAX_LINES + 1))).len(), 1);
    assert_eq!(
        conventions(&source("lb-api/src/x/tests.rs", &"x\n".repeat(MAX_LINES + 1))).len(),
        0
    );
}

#[test]
fn a_crate_that_does_not_forbid_unsafe_code_is_found() {
    let found = unsafe_is_forbidden(&[source("lb-api/src/lib.rs", "//! The API.\n")]);
    assert_eq!(found.len(), SAFE_CRATES.len(), "{found:?}");
}
