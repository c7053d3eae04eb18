use super::*;

impl Served {
    async fn put_at(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", &format!("/api/v1/{path}"), body.to_string()).await
    }
}

fn pool(addresses: &[&str]) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"addresses": addresses}})
}

/// A VIP without an address, of the pool `p`.
fn pooled(name: &str) -> Value {
    let mut vip = good(name);
    vip["spec"].as_object_mut().unwrap().remove("address");
    vip["spec"]["pool"] = json!("p");
    vip
}

#[tokio::test]
async fn a_vip_that_names_a_pool_is_given_an_address_and_keeps_it() {
    let served = Served::new(vec![]).await;
    let missing = served.put("web", &pooled("web")).await.problem();
    assert_eq!((missing.status, missing.pointer.as_deref()), (422, Some("/spec/pool")));
    assert!(missing.detail.contains("names pool p, which is not there"), "{}", missing.detail);
    let created = served.put_at("pools/p", &pool(&["203.0.113.64/31"])).await;
    assert_eq!((created.status, created.headers["etag"].to_str().unwrap()), (201, "\"1\""));
    let address = |answer: &Answer| answer.json()["spec"]["address"].as_str().unwrap().to_owned();
    let web = served.put("web", &pooled("web")).await;
    assert_eq!((web.status, address(&web)), (201, "203.0.113.64".into()));
    assert_eq!(address(&served.put("api", &pooled("api")).await), "203.0.113.65");
    assert_eq!(
        served.put("web", &pooled("web")).await.json()["metadata"]["revision"],
        2,
        "as it was"
    );
    let full = served.put("more", &pooled("more")).await.problem();
    assert_eq!((full.status, full.kind.as_str()), (409, "/problems/pool-exhausted"));
    let status = served.get("/api/v1/pools/p").await.json()["status"].clone();
    assert_eq!((&status["size"], &status["free"]), (&json!(2), &json!(0)));
    assert_eq!(status["conditions"][0]["status"], "False");
    assert_eq!(status["allocated"][1], json!({"address": "203.0.113.65", "vips": ["api"]}));

    let mut elsewhere = pooled("web");
    elsewhere["spec"]["address"] = json!("203.0.113.1");
    let elsewhere = served.put("web", &elsewhere).await;
    assert_eq!(elsewhere.problem().pointer.as_deref(), Some("/spec/address"));
    let used = served.send("DELETE", "/api/v1/pools/p", "").await.problem();
    assert!(
        used.kind == "/problems/in-use" && used.detail.contains("named by VIP api"),
        "{used:?}"
    );
    let smaller = served.put_at("pools/p", &pool(&["203.0.113.65/32"])).await.problem();
    assert!(smaller.detail.contains("would lose 203.0.113.64, which VIP web has"), "{smaller:?}");
    for name in ["web", "api"] {
        assert_eq!(served.send("DELETE", &format!("/api/v1/vips/{name}"), "").await.status, 204);
    }
    assert_eq!(served.send("DELETE", "/api/v1/pools/p", "").await.status, 204);
    assert_eq!(served.get("/api/v1/pools").await.json(), json!({"items": []}));
}

#[tokio::test]
async fn vips_follow_the_health_check_that_they_name() {
    let served = Served::new(vec![]).await;
    let check = |rise: u8| json!({"metadata": {"name": "fast"}, "spec": {"interval_ms": 200, "rise": rise}});
    assert_eq!(served.put_at("health-checks/fast", &check(3)).await.status, 201);
    let mut vip = good("web");
    vip["spec"]["health_check"] = json!({"from": "fast"});
    assert_eq!(
        served.put("web", &vip).await.json()["spec"]["health_check"],
        json!({"from": "fast"})
    );
    let rise = || served.bench.targets().iter().map(|t| t.rise).collect::<Vec<_>>();
    assert_eq!(rise(), [3]);
    assert_eq!(served.put_at("health-checks/fast", &check(5)).await.status, 200);
    assert_eq!(rise(), [5]);
    let both = json!({"from": "fast", "rise": 2});
    vip["spec"]["health_check"] = both;
    let refused = served.put("web", &vip).await.problem();
    assert_eq!(refused.pointer.as_deref(), Some("/spec/health_check/rise"));
    let used = served.send("DELETE", "/api/v1/health-checks/fast", "").await.problem();
    assert_eq!(used.status, 409);
}

#[tokio::test]
async fn resources_have_revisions_patches_dry_runs_and_preconditions() {
    let served = Served::new(vec![]).await;
    let dry = served.put_at("pools/p?dryRun=true", &pool(&["203.0.113.0/24"])).await;
    assert_eq!((dry.status, served.get("/api/v1/pools/p").await.status), (201, 404));
    served.put_at("pools/p", &pool(&["203.0.113.0/24"])).await;
    let patch = async |body: Value| {
        let kind = "application/merge-patch+json";
        served.send_as("PATCH", "/api/v1/pools/p", body.to_string(), kind).await
    };
    let labelled = patch(json!({"metadata": {"labels": {"site": "a"}}})).await;
    assert_eq!((labelled.status, &labelled.json()["metadata"]["revision"]), (200, &json!(2)));
    let stale =
        patch(json!({"metadata": {"revision": 1}, "spec": {"addresses": ["10.0.0.0/24"]}})).await;
    assert_eq!(stale.problem().status, 412);
    let wrong = patch(json!({"spec": {"addresses": ["10.0.0.1/24"]}})).await.problem();
    assert_eq!((wrong.status, wrong.pointer.as_deref()), (422, Some("/spec/addresses/0")));
    let other = served.put_at("pools/q", &pool(&["10.0.0.0/8"])).await.problem();
    assert_eq!(other.pointer.as_deref(), Some("/metadata/name"));
    assert_eq!(served.get("/api/v1/pools/none").await.problem().detail, "there is no pool none");
}

#[tokio::test]
async fn lists_are_selected_by_label_and_come_in_pages() {
    let served = Served::new(vec![]).await;
    for (place, name) in ["a", "b", "c", "d"].iter().enumerate() {
        let mut vip = serde_json::to_value(vip(name, u8::try_from(place).unwrap())).unwrap();
        vip["metadata"]["labels"] = json!({"app": if place % 2 == 0 { "web" } else { "db" }});
        assert_eq!(served.put(name, &vip).await.status, 201);
    }
    let list = async |query: &str| {
        let list = served.get(&format!("/api/v1/vips?{query}")).await.json();
        let names = list["items"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|vip| vip["metadata"]["name"].clone()).collect();
        (json!(names), list["next"].clone())
    };
    assert_eq!(list("labelSelector=app%3Dweb").await, (json!(["a", "c"]), json!(null)));
    assert_eq!(list("limit=3").await, (json!(["a", "b", "c"]), json!("c")));
    assert_eq!(list("limit=3&cursor=c").await, (json!(["d"]), json!(null)));
    assert_eq!(list("limit=1&labelSelector=app!%3Dweb").await, (json!(["b"]), json!("b")));
    for bad in ["limit=0", "cursor=%2F", "labelSelector=a%20b", "colour=red"] {
        assert_eq!(served.get(&format!("/api/v1/vips?{bad}")).await.problem().status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_whole_configuration_has_every_kind_and_is_pruned_by_owner() {
    let served = Served::new(vec![]).await;
    let apply = async |query: &str, body: Value| {
        served.send("POST", &format!("/api/v1/config{query}"), body.to_string()).await
    };
    served.put("alone", &serde_json::to_value(vip("alone", 1)).unwrap()).await;
    let all =
        json!({"pools": [pool(&["203.0.113.64/26"])], "vips": [pooled("web"), pooled("api")]});
    let changes = apply("?owner=ci", all.clone()).await.json();
    assert_eq!(changes["changes"][0], json!({"kind": "pool", "name": "p", "change": "created"}));
    let web = served.get("/api/v1/vips/web").await.json();
    assert_eq!(
        (&web["spec"]["address"], &web["metadata"]["owner"]),
        (&json!("203.0.113.64"), &json!("ci"))
    );
    let again = apply("?owner=ci&prune=true", all).await.json();
    assert!(
        again["changes"].as_array().unwrap().iter().all(|c| c["change"] == "unchanged"),
        "{again}"
    );
    let fewer = json!({"pools": [pool(&["203.0.113.64/26"])], "vips": [pooled("api")]});
    let pruned = apply("?owner=ci&prune=true", fewer).await.json();
    assert_eq!(pruned["changes"][2], json!({"kind": "vip", "name": "web", "change": "deleted"}));
    assert_eq!(served.names().await, ["alone", "api"], "others' stay");
    // A pool goes with the VIPs that name it, and not without them.
    let without = apply("?owner=ci&prune=true", json!({"vips": [pooled("api")]})).await.problem();
    assert!(without.status == 422 || without.status == 409, "{without:?}");
    assert_eq!(apply("?owner=ci&prune=true", json!({})).await.status, 200);
    assert_eq!(served.names().await, ["alone"]);
    let place =
        apply("", json!({"pools": [{"metadata": {"name": "x"}, "spec": {"addresses": []}}]})).await;
    assert_eq!(place.problem().pointer.as_deref(), Some("/pools/0/spec/addresses"));
    assert_eq!(apply("?owner=A", json!({})).await.problem().status, 400);
    // And back to what was there before.
    let back = served.send("POST", "/api/v1/config/rollback", "").await.json();
    assert_eq!(back["changes"].as_array().unwrap().len(), 3, "{back}");
    assert_eq!(served.get("/api/v1/pools/p").await.status, 200);
    assert_eq!(served.get("/api/v1/vips/api").await.json()["metadata"]["owner"], "ci");
}

#[tokio::test]
async fn a_static_route_is_refused_where_its_next_hop_is_not_reachable_and_nothing_changes() {
    let served = Served::new(vec![]).await;
    let route = |prefix: &str, to: &str| json!({"metadata": {"name": "r"}, "spec": {"prefix": prefix, "next_hops": [{"address": to}]}});
    let host_bits = served.put_at("static-routes/r", &route("192.0.2.1/24", "198.51.100.1")).await;
    let host_bits = host_bits.problem();
    assert_eq!((host_bits.status, host_bits.pointer.as_deref()), (422, Some("/spec/prefix")));
    assert!(host_bits.detail.contains("did you mean 192.0.2.0/24?"), "{}", host_bits.detail);
    // The world of these tests reaches everybody but one.
    for path in ["static-routes/r", "static-routes/r?dryRun=true"] {
        let far = served.put_at(path, &route("192.0.2.0/24", "198.51.100.99")).await.problem();
        assert_eq!((far.status, far.pointer.as_deref()), (422, Some("/spec/next_hops/0")));
        assert!(far.detail.contains("no network of this host leads"), "{}", far.detail);
    }
    assert_eq!(served.get("/api/v1/static-routes").await.json(), json!({"items": []}));
    let many = json!({"static_routes": [route("192.0.2.0/24", "198.51.100.99")]});
    let refused = served.send("POST", "/api/v1/config", many.to_string()).await;
    assert_eq!(refused.status, 422);
    assert_eq!(served.get("/api/v1/static-routes").await.json(), json!({"items": []}));
    let made = served.put_at("static-routes/r", &route("192.0.2.0/24", "198.51.100.1")).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["spec"]["metric"], 20);
}

#[tokio::test]
async fn an_address_that_a_vip_has_is_refused() {
    let served = Served::new(vec![vip("web", 1)]).await;
    let body = json!({"metadata": {"name": "a"},
        "spec": {"interface": "eth0", "address": "203.0.113.1/24"}});
    let refused = served.put_at("addresses/a", &body).await.problem();
    assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some("/spec/address")));
    assert!(refused.detail.contains("that of VIP web"), "{}", refused.detail);
    // Nor is a VIP's one that this host was given before, alone or beside others, but where it gives way to that.
    let own = json!({"metadata": {"name": "own"},
        "spec": {"interface": "eth0", "address": "203.0.113.2/24"}});
    assert_eq!(served.put_at("addresses/own", &own).await.status, 201);
    let mut late = good("late");
    late["spec"]["address"] = json!("203.0.113.2");
    let refused = served.put("late", &late).await.problem();
    assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some("/spec/address")));
    assert!(refused.detail.contains("which address own gives to eth0"), "{}", refused.detail);
    let both = json!({"vips": [good("fine"), late]}).to_string();
    let refused = served.send("POST", "/api/v1/config", both).await.problem();
    assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some("/vips/1/spec/address")));
    let instead = json!({"vips": [late]}).to_string();
    let made = served.send("POST", "/api/v1/config?prune=true", instead).await;
    assert_eq!(made.status, 200);
}
