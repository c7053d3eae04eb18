use super::*;

#[tokio::test]
async fn a_backend_is_added_changed_and_removed_by_itself() {
    let served = Served::new(vec![vip("file", 99)]).await;
    served.put("web", &good("web")).await;
    let path = |at: &str| format!("/api/v1/vips/web/backends/{at}");
    let body = |weight: u8| json!({"spec": {"address": "10.0.0.9", "port": 80, "weight": weight}});
    let put =
        async |weight| served.send("PUT", &path("10.0.0.9:80"), body(weight).to_string()).await;
    let added = put(3).await;
    assert_eq!((added.status, added.headers["etag"].to_str().unwrap()), (201, "\"2\""));
    assert_eq!(
        (put(3).await.status, put(4).await.json()["spec"]["weight"].clone()),
        (200, json!(4))
    );
    let patch = async |at: &str, body: Value| {
        let kind = "application/merge-patch+json";
        served.send_as("PATCH", &path(at), body.to_string(), kind).await
    };
    let drained = patch("10.0.0.9:80", json!({"spec": {"drain": true}})).await.json();
    assert_eq!(
        drained["spec"],
        json!({"address": "10.0.0.9", "port": 80, "weight": 4, "drain": true})
    );
    let stale = patch("10.0.0.9:80", json!({"metadata": {"revision": 1}, "spec": {}})).await;
    assert_eq!(stale.problem().status, 412);
    assert_eq!(patch("10.0.0.8:80", json!({})).await.problem().status, 404);
    let moved = patch("10.0.0.9:80", json!({"spec": {"port": 81}})).await.problem();
    assert_eq!((moved.status, moved.pointer.as_deref()), (422, Some("/spec")));

    let all = served.get("/api/v1/vips/web/backends").await.json();
    let names: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|b| &b["metadata"]["name"]).collect();
    assert_eq!(names.last().unwrap(), &"10.0.0.9:80");
    let before = names.len();
    let one = served.get(&path("10.0.0.9:80")).await.json();
    assert_eq!(one["status"]["health"], "unknown");
    for (at, status) in [("10.0.0.9", 400), ("web", 400), ("10.0.0.7:80", 404)] {
        assert_eq!(served.get(&path(at)).await.problem().status, status, "{at}");
    }
    let file = "/api/v1/vips/file/backends/10.0.0.9:80";
    assert_eq!(served.send("PUT", file, body(1).to_string()).await.problem().status, 409);
    assert_eq!(served.send("DELETE", &path("10.0.0.9:80"), "").await.status, 204);
    assert_eq!(served.send("DELETE", &path("10.0.0.9:80"), "").await.problem().status, 404);
    let left = served.get("/api/v1/vips/web/backends").await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), before - 1);
    for place in 0..before - 1 {
        let at = left["items"][place]["metadata"]["name"].as_str().unwrap();
        let gone = served.send("DELETE", &path(at), "").await;
        let is_last = place == before - 2;
        assert_eq!(gone.status, if is_last { 422 } else { 204 }, "a VIP needs one");
    }
}

#[tokio::test]
async fn a_configuration_is_validated_and_compared_without_a_change() {
    let served = Served::new(vec![]).await;
    served.put("a", &serde_json::to_value(vip("a", 1)).unwrap()).await;
    served.put("b", &serde_json::to_value(vip("b", 2)).unwrap()).await;
    let post = async |path: &str, body: &Value| {
        served.send("POST", &format!("/api/v1/config/{path}"), body.to_string()).await
    };
    let mut changed = serde_json::to_value(vip("a", 1)).unwrap();
    changed["spec"]["algorithm"] = json!("round-robin");
    let all = json!({"vips": [changed, vip("c", 3)], "pools": [{"metadata": {"name": "p"}, "spec": {"addresses": ["203.0.113.0/24"]}}]});
    let valid = post("validate?prune=true", &all).await.json();
    assert_eq!(valid["changes"].as_array().unwrap().len(), 4, "{valid}");
    let diff = post("diff?prune=true", &all).await.json();
    let differences = diff["differences"].as_array().unwrap();
    let said: Vec<_> =
        differences.iter().map(|d| format!("{} {}", d["name"], d["change"])).collect();
    assert_eq!(
        said,
        ["\"p\" \"created\"", "\"a\" \"updated\"", "\"c\" \"created\"", "\"b\" \"deleted\""]
    );
    assert_eq!(differences[1]["before"]["spec"]["algorithm"], "maglev");
    assert_eq!(differences[1]["after"]["spec"]["algorithm"], "round-robin");
    assert!(differences[1]["before"]["metadata"].get("revision").is_none());
    assert_eq!((&differences[3]["after"], &differences[0]["before"]), (&json!(null), &json!(null)));
    assert_eq!(served.names().await, ["a", "b"], "nothing has changed");
    let same = json!({"vips": [vip("a", 1), vip("b", 2)]});
    assert_eq!(post("diff?prune=true", &same).await.json(), json!({"differences": []}));
    let wrong = post("validate", &json!({"vips": [{}]})).await.problem();
    assert_eq!(wrong.status, 422);
    assert_eq!(post("diff?dryRun=true", &same).await.problem().status, 400);
}

#[tokio::test]
async fn the_vips_of_a_drained_node_are_advertised_until_they_are_withdrawn_and_again_when_it_is_undrained()
 {
    let served = Served::new(vec![]).await;
    served.put("web", &good("web")).await;
    served.bench.find(lb_api_types::vip::Health::Healthy);
    let advertised = async |wanted: bool| {
        let is = async {
            while served.get("/api/v1/vips/web").await.json()["status"]["advertised"] != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is).await.unwrap();
    };
    advertised(true).await;
    let node = |drain: bool, withdraw: bool| {
        let spec = json!({"drain": drain, "withdraw": withdraw});
        json!({"metadata": {"name": "local"}, "spec": spec}).to_string()
    };
    let path = "/api/v1/nodes/local";
    let state = |answer: &Answer| {
        let conditions = answer.json()["status"]["conditions"].clone();
        [0, 1].map(|n| conditions[n]["status"].as_str().unwrap_or_default().to_owned())
    };
    let drained = served.send("PUT", path, node(true, false)).await;
    assert_eq!(state(&drained), ["True", "False"]);
    advertised(true).await;
    let wrong = served.send("PUT", path, node(false, true)).await.problem();
    assert_eq!((wrong.status, wrong.pointer.as_deref()), (422, Some("/spec/withdraw")));
    let withdrawn = served.send("PUT", path, node(true, true)).await;
    assert_eq!(state(&withdrawn), ["True", "True"]);
    advertised(false).await;
    let conditions = served.get("/api/v1/vips/web").await.json()["status"]["conditions"].clone();
    assert_eq!(conditions[1]["reason"], "NodeWithdrawn");
    assert_eq!(conditions[0]["status"], "True", "it is served as before");
    let other = json!({"metadata": {"name": "other"}, "spec": {}}).to_string();
    assert_eq!(served.send("PUT", "/api/v1/nodes/other", other).await.problem().status, 422);
    assert_eq!(served.send("PUT", path, node(false, false)).await.status, 200);
    advertised(true).await;
}

#[test]
fn the_golden_schema_is_that_of_the_description() {
    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.json");
    let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        golden == now,
        "lb-api/schema.json differs from the API: run `UPDATE_GOLDEN=1 cargo nextest run -p lb-api golden` and look at the difference"
    );
    assert!(!golden.contains("#/components/"), "every reference is to a definition");
}
