//! What holds for every kind that is written: tried for each, so that none is forgotten.

use super::*;
use crate::resources::Kind;

/// Where each one of `ONE_OF_EACH` is, and a backend.
async fn places(served: &Served) -> Vec<String> {
    let mut places = vec!["vips/web".to_owned(), "vips/web/backends/10.0.0.1:8080".to_owned()];
    for &kind in Kind::ALL {
        let all = served.bench.registry.list_resources(kind).await.unwrap();
        places.push(kind.place(&all[0].metadata().name));
    }
    places.into_iter().map(|place| format!("/api/v1/{place}")).collect()
}

impl Served {
    async fn tagged(&self, method: &str, path: &str, tag: &str, body: &Value) -> Answer {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let headers = [("if-match", tag), ("content-type", kind)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.send_with(method, path, &headers, body.to_string().into()).await
    }
}

#[tokio::test]
async fn every_kind_is_patched_tried_and_changed_only_at_the_revision_that_was_read() {
    let served = Served::new(vec![]).await;
    served.apply_one_of_each().await;
    for path in places(&served).await {
        let there = served.get(&path).await;
        let tag = there.headers["etag"].to_str().unwrap().to_owned();
        let body = there.json();
        let is_backend = path.contains("/backends/");
        let patch = match is_backend {
            true => json!({"spec": {"weight": 7}}),
            false => json!({"metadata": {"labels": {"tried": "yes"}}}),
        };
        let pointer = if is_backend { "/spec/weight" } else { "/metadata/labels/tried" };
        let is_as_it_was = async || {
            let now = served.get(&path).await;
            let same =
                now.json()["spec"] == body["spec"] && now.json()["metadata"] == body["metadata"];
            assert!(same, "{path}: {} is not {body}", now.json());
        };
        let tried = served.tagged("PATCH", &format!("{path}?dryRun=true"), &tag, &patch).await;
        assert_eq!(tried.status, 200, "{path}: {:?}", tried.body);
        assert!(!tried.json().pointer(pointer).unwrap().is_null(), "{path}");
        let put = served.tagged("PUT", &format!("{path}?dryRun=true"), &tag, &body).await;
        assert_eq!(put.status, 200, "{path}: what is read can be put: {:?}", put.body);
        is_as_it_was().await;
        for method in ["PUT", "PATCH", "DELETE"] {
            let body = if method == "PATCH" { &patch } else { &body };
            let stale = served.tagged(method, &path, "\"9999\"", body).await.problem();
            assert_eq!(stale.status, 412, "{method} {path}");
            let missing = format!("{path}?dryrun=true");
            assert_eq!(served.tagged(method, &missing, &tag, body).await.problem().status, 400);
        }
        is_as_it_was().await;
        let patched = served.tagged("PATCH", &path, &tag, &patch).await;
        assert_eq!(patched.status, 200, "{path}: {:?}", patched.body);
        assert_ne!(patched.headers["etag"].to_str().unwrap(), tag, "{path}");
        let again = served.tagged("PATCH", &path, &tag, &json!({"spec": {}})).await;
        assert_eq!(again.problem().status, 412, "{path}: the second of two writers");
    }
}

#[tokio::test]
async fn every_kind_says_which_field_is_wrong_and_what_to_write() {
    let served = Served::new(vec![]).await;
    served.apply_one_of_each().await;
    for path in places(&served).await {
        let body = served.get(&path).await.json();
        let is_backend = path.contains("/backends/");
        let mut wrong = vec![
            ("/colour", json!(1), "unknown field"),
            ("/spec/colour", json!(1), "unknown field"),
            ("/metadata/colour", json!(1), "unknown field"),
            ("/metadata/name", json!(7), "has to be text"),
            ("/metadata/revision", json!(0), "from 1 to"),
            ("/metadata/revision", json!("x"), "a number from 1"),
            ("/spec", json!([]), "has to be a mapping"),
            ("/metadata", json!("x"), "has to be a mapping"),
        ];
        if !is_backend {
            wrong.push(("/metadata/labels", json!([]), "has to be"));
            wrong.push(("/metadata/owner", json!("A B"), "lower-case"));
        }
        let spec = body["spec"].as_object().unwrap();
        let pointers: Vec<_> = spec.keys().map(|field| format!("/spec/{field}")).collect();
        for pointer in &pointers {
            wrong.push((pointer, json!({"x": [1]}), ""));
        }
        for (pointer, value, said) in wrong {
            let mut body = body.clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[field] = value;
            let problem = served.send("PUT", &path, body.to_string()).await.problem();
            let at = problem.pointer.clone().unwrap_or_default();
            assert_eq!(problem.status, 422, "{path} {pointer}: {problem:?}");
            assert!(at.starts_with(pointer), "{path} {pointer}: {problem:?}");
            assert!(problem.detail.contains(said), "{path} {pointer}: {problem:?}");
        }
    }
}
