//! The configuration as a whole: read, and changed by who read it last.

use super::*;

#[tokio::test]
async fn the_running_configuration_is_what_was_made_and_what_the_file_says() {
    let served = Served::new(vec![vip("file", 99)]).await;
    let empty = served.get("/api/v1/config").await;
    assert_eq!((empty.status, empty.headers["etag"].to_str().unwrap()), (200, "\"0\""));
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    let running = served.get("/api/v1/config").await;
    assert_eq!(running.headers["etag"], "\"1\"");
    let running = running.json();
    let names: Vec<_> = running["spec"]["vips"].as_array().unwrap().iter().collect();
    assert_eq!(names[0]["metadata"], json!({"name": "file"}));
    assert_eq!(names[1]["metadata"], json!({"name": "web", "revision": 1}));
    assert_eq!(running["status"]["of_file"], json!(["vip/file"]));
    let same = served.send("POST", "/api/v1/config", running["spec"].to_string()).await;
    let unchanged = |name: &str| json!({"kind": "vip", "name": name, "change": "unchanged"});
    assert_eq!(same.json()["changes"], json!([unchanged("file"), unchanged("web")]));
}

#[tokio::test]
async fn of_two_who_change_the_whole_configuration_the_second_is_refused() {
    let served = Served::new(vec![]).await;
    let post = async |path: &str, tag: &str, body: Value| {
        let headers = [("if-match", tag), ("content-type", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        served.send_with("POST", path, &headers, body.to_string().into()).await
    };
    let one = |last| json!({"vips": [vip("web", last)]});
    assert_eq!(post("/api/v1/config", "\"0\"", one(1)).await.status, 200);
    let second = post("/api/v1/config", "\"0\"", one(2)).await.problem();
    assert_eq!(second.status, 412);
    assert!(second.detail.starts_with("the configuration has revision 1, not 0"), "{second:?}");
    assert_eq!(post("/api/v1/config", "\"1\"", one(2)).await.status, 200);
    let back = post("/api/v1/config/rollback", "\"1\"", json!(null)).await.problem();
    assert_eq!(back.status, 412, "nor does anybody go back from what somebody else made of it");
    for bad in ["*", "1", "W/\"2\""] {
        assert_eq!(post("/api/v1/config", bad, one(3)).await.problem().status, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_waits_to_be_confirmed_is_a_condition_of_the_configuration() {
    let served = Served::new(vec![]).await;
    let confirmed = async || {
        let running = served.get("/api/v1/config").await.json();
        let conditions = running["status"]["conditions"].as_array().unwrap().clone();
        let found = conditions.into_iter().find(|it| it["type"] == "Confirmed").unwrap();
        (found["status"].clone(), running["status"]["rolled_back_in_secs"].is_u64())
    };
    assert_eq!(confirmed().await, (json!("True"), false));
    let body = json!({"vips": [good("web")]}).to_string();
    served.send("POST", "/api/v1/config?confirmWithin=3600", body).await;
    assert_eq!(confirmed().await, (json!("False"), true));
    served.send("POST", "/api/v1/config/confirm", "null").await;
    assert_eq!(confirmed().await, (json!("True"), false));
}

#[tokio::test]
async fn sections_of_the_daemons_own_file_are_refused_with_a_sentence() {
    let served = Served::new(vec![]).await;
    for section in ["api", "dataplane", "state_dir", "user"] {
        let mut body = json!({"vips": [good("web")]});
        body[section] = json!({});
        let refused = served.send("POST", "/api/v1/config", body.to_string()).await.problem();
        let pointer = format!("/{section}");
        assert_eq!((refused.status, refused.pointer.as_deref()), (422, Some(pointer.as_str())));
        assert!(refused.detail.contains("when it starts"), "{refused:?}");
    }
    let flat = json!({"peers": []}).to_string();
    let flat = served.send("POST", "/api/v1/config", flat).await.problem();
    assert_eq!((flat.status, flat.pointer.as_deref()), (422, Some("/peers")));
}
