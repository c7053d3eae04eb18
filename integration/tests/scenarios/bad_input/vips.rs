//! Every limit of a VIP, and everything that does not go together: as much as may be is taken, one more is refused by one
//! sentence that names the field, and nothing is half applied.

mod limits;
mod misfits;

use std::cell::RefCell;
use std::net::Ipv4Addr;

use integration::api::Answer;
use lb_api_types::config::Hook;
use lb_api_types::problem::Problem;
use serde_json::{Value, json};

use crate::hello::{Hello, Holds, VIP};

/// Entries of each of the dataplane's tables, so few that one VIP can have more.
const PREFIXES: u32 = 100;
const SOURCES: u32 = 8;
const SLOTS: u32 = 8192;
const BACKENDS: u32 = 50;
const SERVICES: u32 = 4;

/// Cases that a failure lists at most: once something has changed, all others say so.
const SAID: usize = 20;

/// Ports that a VIP has at an address of its own, so that others can get in its way.
const RANGED: (&str, [u16; 2]) = ("203.0.113.20", [8000, 8999]);

#[test]
fn bad_vips_are_refused_with_one_sentence_and_change_nothing() {
    let hello = Hello::up_with(Hook::Tc, |config| {
        let dataplane = &mut config.dataplane;
        dataplane.max_access_prefixes = PREFIXES;
        dataplane.max_source_addresses = SOURCES;
        dataplane.max_ring_slots = SLOTS;
        dataplane.max_backends = BACKENDS;
        dataplane.max_services = SERVICES;
    });
    let web = hello.create_vip();
    hello.upstream_routes_the_vip();
    let (address, [first, last]) = RANGED;
    let mut ranged = good("ranged", address);
    set(&mut ranged, "/spec/port", json!(first));
    set(&mut ranged, "/spec/last_port", json!(last));
    let made = hello.api.try_put_vip("ranged", &ranged).holds();
    assert_eq!(made.status, 201, "{made:?}");

    let bench = Bench { before: Shown::of(&hello), hello: &hello, wrong: RefCell::default() };
    limits::are_taken_and_one_more_is_refused(&bench);
    misfits::are_refused(&bench);
    limits::of_the_dataplane_are_said_by_their_names(&bench);
    limits::of_the_whole_are_refused(&bench);
    let wrong = bench.wrong.into_inner();
    let first = wrong.iter().take(SAID).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} are not as they should be:\n{first}", wrong.len());
    hello.upstream_routes_the_vip();
    hello.is_answered(&web);
}

/// What there is, as whoever asks sees it: the API, the eBPF maps and the kernel's routes.
#[derive(Debug, PartialEq)]
struct Shown {
    config: String,
    maps: Value,
    routes: String,
}

impl Shown {
    fn of(hello: &Hello) -> Self {
        let maps = hello.api.get_text("services/audit").holds();
        let routes = "ip route show type unreachable; ip -6 route show type unreachable";
        let shown = Self {
            config: hello.api.get_text("config").holds(),
            maps: serde_json::from_str(&maps).expect("an audit is JSON"),
            routes: hello.lab.run("lbd", routes).holds(),
        };
        assert_eq!(shown.maps["intact"], true, "{}", shown.maps);
        shown
    }
}

/// A daemon that is asked for what cannot be.
struct Bench<'a> {
    hello: &'a Hello,
    before: Shown,
    /// What was not as it should be, so that one run says all of it.
    wrong: RefCell<Vec<String>>,
}

impl Bench<'_> {
    fn put(&self, vip: &Value, query: &str) -> Answer {
        let name = vip["metadata"]["name"].as_str().expect("it has a name");
        let path = format!("vips/{name}{query}");
        self.hello.api.request("PUT", &path, Some(&vip.to_string())).holds()
    }

    fn expects(&self, holds: bool, what: &str, said: &dyn std::fmt::Debug) {
        if !holds {
            let said = format!("{said:?}");
            self.wrong.borrow_mut().push(format!("{what}: {said:.1000}"));
        }
    }

    /// Taken it would be.
    fn would_take(&self, what: &str, vip: &Value) {
        let answer = self.put(vip, "?dryRun=true");
        self.expects(matches!(answer.status, 200 | 201), what, &answer);
    }

    /// A new VIP that is so, and an old one that becomes so, are refused for this field.
    fn refuses_at(&self, what: &str, vip: &Value, field: &str) {
        let mut vips = vec![vip.clone()];
        if field.starts_with("/spec") {
            let mut old = vip.clone();
            set(&mut old, "/metadata/name", json!("web"));
            if old["spec"]["address"] == NEW {
                set(&mut old, "/spec/address", json!(VIP));
            }
            vips.push(old);
        }
        for vip in vips {
            let Some(problem) = self.refuses(what, &vip, 422, &dotted(field)) else { continue };
            let is_all = problem.errors.len() <= 1;
            self.expects(problem.pointer.as_deref() == Some(field) && is_all, what, &problem);
        }
    }

    /// It is refused with this status and a sentence that says this.
    fn refuses(&self, what: &str, vip: &Value, status: u16, says: &str) -> Option<Problem> {
        self.is_refused(what, &self.put(vip, ""), status, says)
    }

    fn is_refused(&self, what: &str, answer: &Answer, status: u16, says: &str) -> Option<Problem> {
        let now = Shown::of(self.hello);
        self.expects(now == self.before, &format!("{what} changes something"), &now);
        self.expects(answer.status == status, what, answer);
        let Ok(problem) = answer.problem() else {
            self.expects(false, &format!("{what}: no problem document"), answer);
            return None;
        };
        let detail = &problem.detail;
        let is_sentence = !detail.contains('\n') && !detail.contains(". ");
        let is_clear = is_sentence && detail.contains(says) && problem.status == status;
        self.expects(is_clear, &format!("{what} does not say `{says}`"), &problem);
        Some(problem)
    }
}

/// The address of VIPs that are new.
const NEW: &str = "203.0.113.11";

fn good(name: &str, address: &str) -> Value {
    let backends = [backend(2), backend(3)];
    json!({"metadata": {"name": name}, "spec": {"address": address, "port": 80, "backends": backends}})
}

fn new_vip() -> Value {
    good("other", NEW)
}

fn backend(last: u8) -> Value {
    json!({"address": Ipv4Addr::new(10, 244, 1, last), "port": 80})
}

/// Puts a value where a JSON pointer says; what is not there on the way becomes a mapping.
fn set(of: &mut Value, pointer: &str, value: Value) {
    let place = pointer.split('/').skip(1).fold(of, |at, part| match part.parse::<usize>() {
        Ok(index) if at.is_array() => &mut at[index],
        Ok(_) | Err(_) => &mut at[part],
    });
    *place = value;
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut vip = new_vip();
    changes.iter().for_each(|(pointer, value)| set(&mut vip, pointer, value.clone()));
    vip
}

/// A field as sentences have it: `spec.backends[0].port`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) if path.is_empty() => path.push_str(part),
            Err(_) => path.push_str(&format!(".{part}")),
        }
    }
    path
}
