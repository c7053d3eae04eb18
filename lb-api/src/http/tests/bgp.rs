use super::*;

fn resource(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn neighbours_and_what_they_name_are_made_changed_and_removed() {
    let served = Served::new(vec![]).await;
    let put = async |path: &str, spec: Value| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let body = resource(name, &spec).to_string();
        served.send("PUT", &format!("/api/v1/bgp/{path}"), body).await
    };
    let accept = json!({"statements": [{"match": {"prefix_set": "pods"}, "action": "accept"}]});
    let missing = put("policies/p", accept.clone()).await.problem();
    assert_eq!(missing.status, 422);
    assert_eq!(missing.pointer.as_deref(), Some("/spec/statements/0/match/prefix_set"));
    assert!(missing.detail.contains("names the set `pods`, which is not there"), "{missing:?}");

    assert_eq!(put("sets/pods", json!({"prefixes": ["10.0.0.0/8 le 24"]})).await.status, 201);
    assert_eq!(put("policies/p", accept).await.status, 201);
    assert_eq!(put("peer-groups/nodes", json!({"asn": 65001, "import": "p"})).await.status, 201);
    let peer = put("peers/node1", json!({"address": "192.0.2.1", "group": "nodes"})).await;
    assert_eq!(peer.status, 201);
    let group = served.get("/api/v1/bgp/peer-groups/nodes").await.json();
    assert_eq!(group["status"]["by"], json!(["peer node1"]));

    for (path, by) in [("sets/pods", "policy p"), ("policies/p", "peer group nodes")] {
        let used = served.send("DELETE", &format!("/api/v1/bgp/{path}"), "").await.problem();
        let words = format!("is named by {by}");
        assert!(used.status == 409 && used.detail.contains(&words), "{used:?}");
    }
    let (path, patch) = ("/api/v1/bgp/peers/node1", r#"{"spec":{"passive":true}}"#);
    let patched = served.send_as("PATCH", path, patch, "application/merge-patch+json");
    assert_eq!(patched.await.json()["spec"]["passive"], true);
    assert_eq!(served.send("DELETE", "/api/v1/bgp/peers/node1", "").await.status, 204);
    assert_eq!(served.send("DELETE", "/api/v1/bgp/peer-groups/nodes", "").await.status, 204);
}

#[tokio::test]
async fn what_cannot_work_is_one_sentence_and_changes_nothing() {
    let served = Served::new(vec![]).await;
    let first = resource("a", &json!({"address": "192.0.2.1", "asn": 65001}));
    served.send("PUT", "/api/v1/bgp/peers/a", first.to_string()).await;
    let cases = [
        ("peers", json!({"address": "192.0.2.2", "asn": 0}), "/spec/asn", "RFC 7607"),
        ("peers", json!({"address": "192.0.2.2"}), "/spec/asn", "AS number"),
        (
            "peers",
            json!({"address": "192.0.2.2", "asn": 65001, "hold_time_secs": 2}),
            "/spec/hold_time_secs",
            "RFC 4271",
        ),
        (
            "peers",
            json!({"address": "192.0.2.1", "asn": 65001}),
            "/spec",
            "b has the address 192.0.2.1 of peer a: one",
        ),
        (
            "peers",
            json!({"address": "192.0.2.2", "asn": 65001, "import": "nobody"}),
            "/spec/import",
            "which is not there",
        ),
        (
            "peers",
            json!({"address": "192.0.2.2", "asn": 65001, "families": ["l2vpn"]}),
            "/spec/families/0",
            "ipv4, ipv6",
        ),
        (
            "peers",
            json!({"address": "192.0.2.2", "asn": 65001, "restart_time_secs": 5000}),
            "/spec/restart_time_secs",
            "4095",
        ),
        ("sets", json!({"prefixes": ["10.0.0.1/8"]}), "/spec/prefixes/0", "host bits"),
        (
            "policies",
            json!({"statements": [{"match": {"family": "ipx"}, "action": "accept"}]}),
            "/spec/statements/0/match/family",
            "ipv4, ipv6",
        ),
        (
            "policies",
            json!({"statements": [{"match": {"prefix_set": "pods"}, "action": "accept"}]}),
            "/spec/statements/0/match/prefix_set",
            "names the set `pods`, which is not there",
        ),
    ];
    for (kind, spec, pointer, words) in cases {
        let body = resource("b", &spec).to_string();
        let refused = served.send("PUT", &format!("/api/v1/bgp/{kind}/b"), body).await.problem();
        assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some(pointer)), "{spec}");
        assert!(refused.detail.contains(words), "{refused:?}");
        assert_eq!(served.get(&format!("/api/v1/bgp/{kind}/b")).await.status, 404);
    }
    // What is there stays as it is, too.
    let before = served.get("/api/v1/bgp/peers/a").await.json();
    for spec in [
        json!({"address": "192.0.2.1", "asn": 0}),
        json!({"address": "192.0.2.1", "asn": 65002, "hold_time_secs": 2}),
    ] {
        let body = resource("a", &spec).to_string();
        assert_eq!(served.send("PUT", "/api/v1/bgp/peers/a", body).await.status, 422, "{spec}");
        assert_eq!(served.get("/api/v1/bgp/peers/a").await.json(), before, "{spec}");
    }
}

#[tokio::test]
async fn a_session_is_cleared_and_a_route_explained() {
    let served = Served::new(vec![]).await;
    let peer = resource("a", &json!({"address": "192.0.2.1", "asn": 65001}));
    served.send("PUT", "/api/v1/bgp/peers/a", peer.to_string()).await;
    let clear = async |rest: &str| {
        served.send("POST", &format!("/api/v1/bgp/peers/{rest}"), "").await.status
    };
    assert_eq!(clear("a/clear").await, 204);
    assert_eq!(clear("a/clear?what=session").await, 204);
    assert_eq!(clear("a/clear?what=all").await, 400);
    assert_eq!(clear("b/clear").await, 404);
    let explained = served.get("/api/v1/bgp/explain?prefix=10.0.0.0/8").await;
    assert_eq!(explained.json()["prefix"], "10.0.0.0/8");
    let explained = served.get("/api/v1/bgp/explain?prefix=10.0.0.1").await;
    assert_eq!(explained.json()["prefix"], "10.0.0.1/32");
    let unknown = served.get("/api/v1/bgp/routes?table=adj-rib-in&neighbor=192.0.2.9").await;
    assert!(unknown.problem().detail.contains("no such neighbour"));
    for query in ["", "?prefix=10.0.0.1/8", "?prefix=x", "?colour=red"] {
        assert_eq!(served.get(&format!("/api/v1/bgp/explain{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn bgp_as_a_whole_is_a_resource_too() {
    let served = Served::new(vec![]).await;
    let path = "/api/v1/bgp/global";
    let put =
        async |spec: Value| served.send("PUT", path, resource("global", &spec).to_string()).await;
    let made = put(json!({"asn": 65001, "decision": {"max_paths": 8}})).await;
    assert!(made.status == 200 || made.status == 201, "{}", made.json());
    let global = served.get(path).await.json();
    assert_eq!(
        (&global["spec"]["decision"]["max_paths"], &global["status"]["asn"]),
        (&json!(8), &json!(65000))
    );
    let merge = "application/merge-patch+json";
    let patched = served.send_as("PATCH", path, r#"{"spec":{"decision":null}}"#, merge).await;
    assert_eq!(patched.json()["spec"], json!({"asn": 65001}));
    for (spec, pointer) in [
        (json!({"decision": {"max_paths": 257}}), "/spec/decision/max_paths"),
        (json!({"asn": 0}), "/spec/asn"),
        (json!({"router_id": "0.0.0.0"}), "/spec/router_id"),
        (json!({"listen": "0.0.0.0:0"}), "/spec/listen"),
    ] {
        let refused = put(spec).await.problem();
        assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some(pointer)));
    }
    assert_eq!(served.get("/api/v1/bgp/global/global").await.problem().status, 404);
    let whole = json!({"bgp": {"asn": 65002}}).to_string();
    let applied = served.send("POST", "/api/v1/config", whole).await.json();
    assert_eq!(applied["changes"][0]["change"], "updated", "{applied}");
    assert_eq!(served.send("DELETE", path, "").await.status, 204);
}
