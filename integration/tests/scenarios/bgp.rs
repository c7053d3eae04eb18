//! Neighbours and policies that change while the daemon runs.

use anyhow::{Context, Result, ensure};
use integration::demo;
use integration::wait::eventually;
use lb_api_types::config::Hook;
use lb_api_types::view::PeerView;
use serde_json::{Value, json};

use crate::hello::{Hello, Holds, SOON};

const BLOCK: &str = "10.244.1.0/26";

impl Hello {
    fn put(&self, path: &str, spec: &Value) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let body = json!({"metadata": {"name": name}, "spec": spec}).to_string();
        let answer = self.api.request("PUT", path, Some(&body))?;
        ensure!(matches!(answer.status, 200 | 201), "PUT {path}: {}", answer.body);
        Ok(())
    }

    fn session(&self, name: &str) -> Result<PeerView> {
        let peers = self.api.peers()?;
        peers.into_iter().find(|peer| peer.name == name).context("there is no such peer")
    }

    fn is_established(&self, name: &str) {
        eventually(&format!("the session with {name} is Established"), SOON, || {
            let peer = self.session(name)?;
            ensure!(peer.state == "Established", "{peer:?}");
            Ok(())
        })
        .holds();
    }
}

impl Hello {
    /// The session is the one that it was.
    fn lasts(&self, before: &PeerView) {
        let now = self.session(&before.name).holds();
        assert_eq!((now.state.as_str(), &now.last_error), ("Established", &before.last_error));
        assert!(now.since_secs >= before.since_secs, "its session began anew: {now:?}");
    }
}

#[test]
fn neighbours_and_policies_change_over_rest_and_untouched_sessions_last() {
    let hello = Hello::of(demo::TOPOLOGY, Hook::Tc, |config| {
        config.bgp.peers.retain(|peer| peer.title() != "node1");
    });
    let untouched = ["upstream", "node2"].map(|name| {
        hello.is_established(name);
        hello.session(name).holds()
    });
    let asn = json!({"asn": 64512, "hold_time_secs": 30, "connect_retry_secs": 2});
    hello.put("bgp/peer-groups/nodes", &asn).holds();
    hello.put("bgp/policies/pods", &json!({"statements": [{"action": "accept"}]})).holds();
    let node = json!({"address": "10.0.1.2", "group": "nodes", "import": "pods"});
    hello.put("bgp/peers/node1", &node).holds();
    hello.is_established("node1");
    hello.is_in_the_fib(BLOCK, "eth2", "node1");

    // Policy alone: routes go and come, sessions stay.
    let touched = hello.session("node1").holds();
    hello.put("bgp/sets/blocks", &json!({"prefixes": [BLOCK]})).holds();
    let refusing = json!({"statements": [
        {"match": {"prefix_set": "blocks"}, "action": "reject"}, {"action": "accept"}]});
    hello.put("bgp/policies/pods", &refusing).holds();
    hello.has_left_the_fib(BLOCK);
    hello.put("bgp/policies/pods", &json!({"statements": [{"action": "accept"}]})).holds();
    hello.is_in_the_fib(BLOCK, "eth2", "node1");
    let used = hello.api.request("DELETE", "bgp/policies/pods", None).holds();
    assert!(used.status == 409 && used.body.contains("named by peer node1"), "{}", used.body);
    hello.lasts(&touched);
    untouched.iter().for_each(|before| hello.lasts(before));

    let gone = hello.api.request("DELETE", "bgp/peers/node1", None).holds();
    assert_eq!(gone.status, 204, "{}", gone.body);
    hello.has_left_the_fib(BLOCK);
    untouched.iter().for_each(|before| hello.lasts(before));
}
