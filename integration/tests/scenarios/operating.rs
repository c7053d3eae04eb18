//! What an operator does: looks for what is wrong, with `lbctl` and without.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Result, ensure};
use integration::lab::Options;
use integration::wait::eventually;
use integration::{bpf, demo, traffic};
use lb_api_types::config::{Config, Hook};
use lb_api_types::vip::Vip;
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use crate::hello::{Hello, Holds, INTERFACES, SOON, VIP, address};
use crate::traffic::{goes_on, while_transferring};

impl Hello {
    /// A command's output and exit code.
    pub(crate) fn lbctl(&self, line: &str) -> Result<(String, u8)> {
        let said = self.lab.run("lbd", &format!("lbctl {line} 2>&1; echo $?"))?;
        let (text, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
        Ok((text.to_owned(), code.parse()?))
    }

    /// What becomes of a VIP that is made, changed and removed.
    fn everything_was_told(&self) {
        let (text, code) = self.lbctl("events").holds();
        assert_eq!(code, 0, "{text}");
        for (kind, name) in [
            ("peer-state", "upstream"),
            ("backend-health", ":"),
            ("vip-created", "web"),
            ("vip-advertised", "web"),
            ("vip-updated", "web"),
            ("vip-withdrawn", "web"),
            ("vip-deleted", "web"),
            ("paths-changed", "node1"),
            ("fib-changed", "routes"),
        ] {
            let found = text.lines().any(|line| line.contains(kind) && line.contains(name));
            assert!(found, "{kind} {name} is not in\n{text}");
        }
    }

    fn doctor_finds(&self, subject: &str, words: &str, is_found: bool) {
        let what =
            format!("doctor {} `{words}`", if is_found { "finds" } else { "no longer finds" });
        eventually(&what, SOON, || {
            let (text, code) = self.lbctl("doctor")?;
            let lines = text
                .lines()
                .filter(|line| line.starts_with("warning") || line.starts_with("error"));
            let found =
                lines.filter(|line| line.contains(subject) && line.contains(words)).count() > 0;
            ensure!(found == is_found, "{text}");
            ensure!(code == 4 || !is_found, "exit code {code}");
            Ok(())
        })
        .holds();
    }
}

#[test]
fn doctor_finds_what_stands_in_the_way_and_says_what_to_do() {
    let (mut hello, _vip) = Hello::up_with_vip(Hook::Tc);
    eventually("all is well", SOON, || {
        let (text, code) = hello.lbctl("doctor")?;
        ensure!(code == 0, "exit code {code}: {text}");
        Ok(())
    })
    .holds();
    for (setting, value, well, subject) in [
        ("net.ipv4.conf.eth2.rp_filter", 1, 0, "eth2"),
        ("net.ipv4.conf.all.rp_filter", 2, 0, "eth3"),
        ("net.ipv4.ip_forward", 0, 1, "ip_forward"),
    ] {
        let name = setting.rsplit('.').next().unwrap_or_default();
        hello.lab.run("lbd", &format!("sysctl -w {setting}={value}")).holds();
        hello.doctor_finds(subject, name, true);
        let (text, _) = hello.lbctl("doctor").holds();
        let remedy = format!("{setting}={well}");
        assert!(text.lines().any(|l| l.contains("remedy:") && l.contains(&remedy)), "{text}");
        hello.lab.run("lbd", &format!("sysctl -w {setting}={well}")).holds();
        hello.doctor_finds(subject, name, false);
    }
    hello.stop("upstream", Signal::SIGTERM);
    hello.doctor_finds("upstream", "the session is", true);
}

#[test]
fn a_request_shows_in_the_metrics_that_prometheus_reads() {
    let (hello, vip) = Hello::up_with_vip(Hook::Xdp);
    hello.is_answered(&vip);
    let socket = hello.api.socket().display().to_string();
    let get = |path: &str| {
        hello.lab.run(
            "lbd",
            &format!("curl -sS --fail-with-body --unix-socket {socket} http://lbd{path}"),
        )
    };
    assert_eq!((get("/healthz").holds().trim(), get("/readyz").holds().trim()), ("ok", "ok"));
    let text = get("/metrics").holds();
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
            .parse::<u64>()
            .unwrap_or_default()
    };
    let name = &vip.metadata.name;
    assert!(value(&format!("lbd_vip_flows_total{{vip=\"{name}\"}}")) > 0);
    assert_eq!(value(&format!("lbd_vip_advertised{{vip=\"{name}\"}}")), 1);
    let reason = "reason=\"forwarded-to-backend\",verdict=\"forward\"";
    assert!(value(&format!("lbd_packets_total{{{reason}}}")) > 0);
    assert_eq!(value("lbd_interface_attached{interface=\"eth1\",hook=\"xdp\"}"), 1);
    let healthy = text
        .lines()
        .filter(|line| line.starts_with("lbd_backend_healthy{") && line.ends_with(" 1"));
    assert_eq!(healthy.count(), vip.spec.backends.len());
}

#[test]
fn an_operator_makes_compares_exports_and_restores_vips_with_lbctl() {
    let hello = Hello::up(Hook::Tc);
    let wanted = demo::vip(&hello.lab).holds();
    let backends: String = wanted
        .spec
        .backends
        .iter()
        .map(|b| format!(" --backend {}:{}", b.address, b.port))
        .collect();
    let create = format!("create vip web --address {VIP} --port {}{backends}", wanted.spec.port);
    let lbctl = |line: &str| hello.lbctl(line).holds();
    assert_eq!(lbctl(&format!("{create} --dry-run")), ("vip web created (dry run)".into(), 0));
    assert_eq!(lbctl("get vip web").1, 1, "nothing was made");
    let (text, code) = lbctl(&format!("{create} --wait --timeout 40"));
    assert_eq!((text.lines().last(), code), (Some("vip web is served and advertised"), 0));
    hello.upstream_routes_the_vip();
    let (text, code) = lbctl(&create);
    assert!(code == 1 && text.contains("there is a VIP web already"), "{code} {text}");
    assert_eq!(lbctl("get vips -o name"), ("vip/web".into(), 0));

    let file = hello.lab.folder().join("web.yaml").display().to_string();
    hello.lab.run("lbd", &format!("lbctl export > {file}")).holds();
    assert_eq!(lbctl(&format!("diff -f {file}")), (String::new(), 0), "an export is what there is");
    assert_eq!(lbctl(&format!("apply -f {file}")), ("vip web unchanged".into(), 0));
    hello.lab.run("lbd", &format!("sed -i 's/maglev/round-robin/' {file}")).holds();
    let (text, code) = lbctl(&format!("diff -f {file}"));
    assert!(
        code == 4 && text.contains("-  algorithm: maglev\n+  algorithm: round-robin"),
        "{code} {text}"
    );
    assert_eq!(lbctl(&format!("apply -f {file} --dry-run")).0, "vip web updated (dry run)");
    assert_eq!(lbctl(&format!("diff -f {file}")).1, 4, "a dry run changes nothing");
    assert_eq!(
        lbctl(&format!("apply -f {file} --wait")).0,
        "vip web updated\nvip web is served and advertised"
    );
    assert_eq!(lbctl(&format!("diff -f {file}")).1, 0);
    // One document that is wrong: none is applied.
    let both = hello.lab.folder().join("both.yaml").display().to_string();
    let other = "metadata: {name: other}\nspec: {address: 203.0.113.10, port: 80, backends: [{address: 10.0.0.1, port: 1}]}";
    hello
        .lab
        .run("lbd", &format!("(echo '{other}'; sed s/round-robin/maglev/ {file}) > {both}"))
        .holds();
    let (text, code) = lbctl(&format!("apply -f {both}"));
    assert!(
        code == 1 && text.contains("vip other is refused: VIP web has tcp port 80"),
        "{code} {text}"
    );
    assert_eq!(lbctl(&format!("diff -f {file}")).1, 0, "web is as it was");
    assert_eq!(lbctl("delete vip web --dry-run").0, "vip web deleted (dry run)");
    assert_eq!(lbctl("delete vip web"), ("vip web deleted".into(), 0));
    hello.upstream_has_no_route_to_the_vip();

    hello.everything_was_told();
    let (text, _) = lbctl("show bgp summary");
    assert!(text.contains("3 of 3 sessions Established"), "{text}");
    let (text, _) = lbctl("show bgp neighbors upstream");
    assert!(text.contains("State:        Established"), "{text}");
    // A backend that nobody can reach: what is waited for does not come.
    let (text, code) = lbctl(
        "create vip dead --address 203.0.113.11 --port 80 --backend 192.0.2.77:80 --wait --timeout 1",
    );
    assert!(
        code == 4 && text.contains("vip dead is not ready after 1 s: not advertised"),
        "{code} {text}"
    );
}

#[test]
fn a_backend_that_is_drained_at_tc_keeps_its_transfer_and_is_given_no_new_flows() {
    a_drained_backend_keeps_its_transfer_and_is_given_no_new_flows(Hook::Tc);
}

#[test]
fn a_backend_that_is_drained_at_xdp_keeps_its_transfer_and_is_given_no_new_flows() {
    a_drained_backend_keeps_its_transfer_and_is_given_no_new_flows(Hook::Xdp);
}

fn a_drained_backend_keeps_its_transfer_and_is_given_no_new_flows(hook: Hook) {
    let (mut hello, vip) = Hello::up_with_vip(hook);
    a_transfer_outlives_that_its_backend_is_drained(&mut hello, &vip);
}

pub(crate) fn a_transfer_outlives_that_its_backend_is_drained(hello: &mut Hello, vip: &Vip) {
    let pods = vip.spec.backends.len();
    while_transferring(hello, vip, |hello, arrived| {
        let flows = hello.api.flows().holds();
        let backend = &flows.first().expect("the transfer is a flow").status.backend;
        let (text, code) = hello.lbctl(&format!("drain {backend}")).holds();
        assert_eq!((text.as_str(), code), ("vip web: 1 backends drained", 0));
        let client = hello.lab.netns("client").holds();
        // Round robin: each of the others has as many.
        let (others, each) = (pods - 1, 20 / (pods - 1) as u32);
        let spread = traffic::requests(client, address(vip), 20).holds();
        spread.expect(others, each - 1, each + 1).holds();
        goes_on(arrived, "the drained backend goes on with its transfer");
        let (text, _) = hello.lbctl("describe vip web").holds();
        assert!(text.contains("healthy, drained") && text.contains("1 of them drained"), "{text}");
        assert_eq!(hello.lbctl(&format!("undrain {backend}")).holds().1, 0);
        let each = 30 / pods as u32;
        let spread = traffic::requests(client, address(vip), 30).holds();
        spread.expect(pods, each - 1, each + 1).holds();
    });
}

#[test]
fn clean_takes_everything_out_of_the_kernel_whatever_size_tables_are_to_have_now() {
    let (mut hello, _) = Hello::up_with_vip(Hook::Xdp);
    let file = hello.lab.folder().join("lbd/lbd.yaml");
    let clean = format!(
        "{} clean -c {}",
        Options::of(demo::TOPOLOGY, None, None).holds().lbd.display(),
        file.display()
    );
    let refused = format!("{:#}", hello.lab.run("lbd", &clean).expect_err("lbd runs"));
    assert!(refused.contains("stop it first"), "{refused}");
    hello.stop("lbd", Signal::SIGTERM);
    let mut config: Config = serde_norway::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    config.dataplane.max_flow_entries *= 2;
    let pins = config.dataplane.pin_dir.clone();
    fs::write(&file, serde_norway::to_string(&config).unwrap()).unwrap();

    let said = hello.lab.run("lbd", &clean).holds();
    for interface in INTERFACES {
        assert!(said.contains(&format!("detached from {interface}\n")), "{said}");
        eventually("nothing is attached", SOON, || {
            let attached = bpf::attached(&hello.lab, "lbd", interface)?;
            ensure!(attached.is_empty(), "{interface}: {attached:?}");
            Ok(())
        })
        .holds();
    }
    let left = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(left.filter(|path| path.is_dir()).count(), 0);
    let routes = hello.lab.run("lbd", "ip route show; ip -6 route show").holds();
    assert!(!routes.contains(VIP), "{routes}");
    // Nothing is left to be adopted, or to stand in the way.
    hello.start("lbd");
    hello.upstream_routes_the_vip();
}

#[test]
fn a_drained_node_says_goodbye_and_goes_on_serving_until_its_vips_are_withdrawn() {
    let (hello, vip) = Hello::up_with_vip(Hook::Tc);
    let route = |words: &'static str, is_there: bool| {
        let what = format!("upstream's path {} {words}", if is_there { "has" } else { "lacks" });
        eventually(&what, SOON, || {
            let text = hello.lab.run("upstream", &format!("vtysh -c 'show bgp ipv4 {VIP}/32'"))?;
            ensure!(text.contains("best") && text.contains(words) == is_there, "{text}");
            Ok(())
        })
        .holds();
    };
    let since = || {
        let peers = hello.api.peers().holds();
        let upstream = peers.iter().find(|peer| peer.name == "upstream").expect("it is there");
        (upstream.state.clone(), upstream.since_secs)
    };
    let before = since();
    route("graceful-shutdown", false);
    let lbctl = |line: &str| hello.lbctl(line).holds();
    assert_eq!(lbctl("drain --node"), ("node local drained".into(), 0));
    route("graceful-shutdown", true);
    hello.is_answered(&vip);
    let (said, _) = lbctl("drain --node --withdraw");
    assert_eq!(said, "node local drained, its VIPs withdrawn");
    hello.upstream_has_no_route_to_the_vip();
    assert_eq!(lbctl("undrain --node"), ("node local undrained".into(), 0));
    hello.upstream_routes_the_vip();
    route("graceful-shutdown", false);
    let after = since();
    assert!(after.0 == before.0 && after.1 >= before.1, "the session never ended: {after:?}");
}

#[test]
fn a_change_that_nobody_confirms_is_undone_for_the_neighbours_too() {
    let (hello, _vip) = Hello::up_with_vip(Hook::Tc);
    let path = |name: &str| hello.lab.folder().join(name).display().to_string();
    let (file, elsewhere) = (path("vips.yaml"), path("elsewhere.yaml"));
    hello.lab.run("lbd", &format!("lbctl export > {file}")).holds();
    let other = format!("sed 's/{VIP}/203.0.113.12/' {file} > {elsewhere}");
    hello.lab.run("lbd", &other).holds();
    let (text, code) = hello.lbctl(&format!("apply -f {elsewhere} --confirm 10")).holds();
    assert!(code == 0 && text.contains("rolled back in 10 s"), "{code} {text}");
    hello.upstream_has_no_route_to_the_vip();
    hello.upstream_routes_the_vip();
    assert_eq!(hello.lbctl(&format!("diff -f {file}")).holds(), (String::new(), 0));
    // And one that is confirmed stays.
    hello.lbctl(&format!("apply -f {elsewhere} --confirm 60")).holds();
    let confirmed = hello.lbctl("config confirm").holds();
    assert_eq!(confirmed, ("the configuration is confirmed".to_owned(), 0));
    assert_eq!(hello.lbctl(&format!("diff -f {elsewhere}")).holds().1, 0);
    let (text, _) = hello.lbctl("config rollback").holds();
    assert_eq!(text, "vip web updated");
    hello.upstream_routes_the_vip();
}

/// Bits of `linux/capability.h`: NET_BIND_SERVICE, NET_ADMIN, NET_RAW, PERFMON, BPF.
const CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

#[test]
fn every_thread_of_the_daemon_has_given_up_what_it_does_not_need() {
    let (mut hello, vip) = Hello::up_with_vip(Hook::Xdp);
    let held = |hello: &Hello| {
        let socket = UnixStream::connect(hello.api.socket()).expect("lbd answers");
        let pid = getsockopt(&socket, PeerCredentials).expect("the kernel knows it").pid();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let mut seen = 0;
        for thread in threads {
            let status = thread.expect("it is listed").path().join("status");
            let Ok(status) = fs::read_to_string(status) else { continue };
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("{name} is not in\n{status}")).trim().to_owned()
            };
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(u64::from_str_radix(&field(set), 16), Ok(CAPABILITIES), "{set}");
            }
            for set in ["CapInh:", "CapAmb:"] {
                assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
            }
            assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
            seen += 1;
        }
        assert!(seen > 2, "the runtime's threads and the dataplane's: {seen}");
    };
    held(&hello);
    hello.is_answered(&vip);
    // What an earlier daemon pinned is adopted with as little.
    hello.stop("lbd", Signal::SIGTERM);
    hello.start("lbd");
    hello.upstream_routes_the_vip();
    held(&hello);
    hello.is_answered(&vip);
}

#[test]
fn bgp_as_a_whole_changes_while_lbd_runs_but_for_what_its_file_says() {
    let hello = Hello::up(Hook::Tc);
    hello.sessions_are_established();
    let put = |spec: &str| {
        let body = format!(r#"{{"metadata": {{"name": "global"}}, "spec": {spec}}}"#);
        hello.api.request("PUT", "bgp/global", Some(&body)).holds()
    };
    let global = || -> serde_json::Value {
        serde_json::from_str(&hello.api.get_text("bgp/global").holds()).expect("it is JSON")
    };
    assert_eq!(global()["status"]["decision"]["max_paths"], 64);
    let refused = put(r#"{"asn": 65009}"#);
    let problem = refused.problem().holds();
    assert_eq!((refused.status, problem.pointer.as_deref()), (422, Some("/spec/asn")));
    assert!(problem.detail.contains("in the configuration file"), "{}", problem.detail);

    let since = |name: &str| {
        let peers = hello.api.peers().holds();
        peers.into_iter().find(|peer| peer.name == name).expect("it is there").since_secs
    };
    eventually("the session is some seconds old", SOON, || {
        ensure!(since("upstream") >= 3, "it is young");
        Ok(())
    })
    .holds();
    assert_eq!(put(r#"{"decision": {"max_paths": 1}}"#).status, 200);
    assert!(since("upstream") >= 3, "another number of paths ends no session");
    assert_eq!(put(r#"{"cluster_id": "192.0.2.9"}"#).status, 200);
    hello.sessions_are_established();
    assert_eq!(global()["status"]["cluster_id"], "192.0.2.9");
    let (text, code) = hello.lbctl("get bgp-global").holds();
    assert!(code == 0 && text.contains("192.0.2.9") && text.contains("64512"), "{text}");
    assert_eq!(hello.api.request("DELETE", "bgp/global", None).holds().status, 204);
    assert_eq!(global()["status"]["cluster_id"], "192.0.2.2");
    hello.sessions_are_established();

    // Where it listens moves while sessions go on, and only where it can.
    let listens = || hello.lab.run("lbd", "ss -Hltn").holds();
    let (text, code) = hello.lbctl("create bgp-global --listen 192.0.2.2:1790").holds();
    assert_eq!((text.as_str(), code), ("bgp-global global created", 0));
    assert!(listens().contains("192.0.2.2:1790") && !listens().contains("0.0.0.0:179 "));
    assert_eq!(global()["status"]["listen"], "192.0.2.2:1790");
    let (text, code) = hello.lbctl("create bgp-global --listen 192.0.2.2:1791").holds();
    assert!(code == 1 && text.contains("already"), "{text}");
    let refused = put(r#"{"listen": "192.0.2.77:179"}"#);
    assert!(refused.status >= 400 && refused.body.contains("192.0.2.77:179"), "{refused:?}");
    assert!(listens().contains("192.0.2.2:1790"), "it is where it was: {}", listens());
    assert_eq!(hello.api.request("DELETE", "bgp/global", None).holds().status, 204);
    assert!(listens().contains("0.0.0.0:179 "), "{}", listens());
    hello.sessions_are_established();
}

/// Every kind with the name of one of them.
const KINDS: [(&str, &str); 18] = [
    ("vip", "web"),
    ("backend", "web/10.244.2.77:8080"),
    ("pool", "p"),
    ("health-check", "h"),
    ("node", "local"),
    ("interface", "eth1"),
    ("bgp-global", ""),
    ("set", "s"),
    ("policy", "none-of-it"),
    ("peer-group", "g"),
    ("address", "a"),
    ("static-route", "r"),
    ("peer", "upstream"),
    ("route", "10.244.1.0/26"),
    ("fib", "10.244.1.0/26"),
    ("flow", "web"),
    ("token", "t"),
    ("status", ""),
];

#[test]
fn every_kind_takes_every_verb_or_says_in_one_sentence_why_not() {
    let (hello, vip) = Hello::up_with_vip(Hook::Tc);
    assert_eq!(vip.metadata.name, "web");
    for line in [
        "create pool p --addresses 203.0.113.128/28",
        "create health-check h --interval 500",
        "create set s --prefix '10.244.0.0/16 ge 24'",
        "create policy none-of-it --statement '{match: {prefix_set: s}, action: reject}'",
        "create peer-group g --asn 64512 --import all --set hold_time_secs=9",
        "create peer far --address 198.51.100.99 --group g --set passive=true",
        "create backend web/10.244.2.77:8080 --weight 2",
        "create token t --role viewer",
        "create address a --interface eth1 --address 10.9.9.9/24",
        "create static-route r --prefix 198.18.0.0/15 --next-hop 192.0.2.1",
        "undrain --node",
    ] {
        let (text, code) = hello.lbctl(line).holds();
        assert_eq!(code, 0, "{line}: {text}");
    }
    hello.is_in_the_fib("10.244.1.0/26", "eth2", "node1");
    for (kind, name) in KINDS {
        let list = if kind == "backend" { "web" } else { "" };
        for output in ["table", "wide", "json", "yaml", "name"] {
            let line = format!("get {kind} {list} -o {output}");
            let (text, code) = hello.lbctl(&line).holds();
            let empty = text.is_empty() && kind == "flow";
            assert!(code == 0 && (!text.is_empty() || empty), "{line}: {code} {text}");
        }
        for verb in ["describe", "describe -o json", "EDIT", "delete --dry-run"] {
            let line = match verb {
                "EDIT" => format!("edit {kind} {name} --dry-run"),
                verb => format!("{verb} {kind} {name}"),
            };
            let said = format!("EDITOR=true lbctl {line} 2>&1; echo $?");
            let said = hello.lab.run("lbd", &said).holds();
            let (text, code) = said.trim_end().rsplit_once('\n').expect("there are words");
            let fine = code == "0" || (code == "1" && text.lines().count() == 1);
            assert!(fine && !text.contains("panicked"), "{line}: {code} {text}");
        }
    }
    for (line, said) in [
        ("delete flow web", "the kind flow is only seen, and cannot be deleted: it ends by itself"),
        ("edit token t", "token cannot be changed: delete it and create another one"),
        ("delete backend web", "a backend is VIP/ADDRESS:PORT"),
        ("describe peer", "say which one: lbctl describe peer NAME"),
        ("get flows -l a=b", "the kind flow has no labels: leave -l out"),
        ("get backends", "say of which VIP: lbctl get backends VIP"),
    ] {
        let (text, code) = hello.lbctl(line).holds();
        assert!(code != 0 && text.contains(said), "{line}: {code} {text}");
    }
    let (text, code) = hello.lbctl("create peer far2 --address 198.51.100.98 --group g --set passive=true --wait --timeout 1").holds();
    assert!(code == 4 && text.contains("peer far2 is not ready after 1 s"), "{code} {text}");
}

#[test]
fn lbctl_writes_colours_to_terminals_only_and_not_where_no_color_is_set() {
    let lbctl = Options::of(demo::TOPOLOGY, None, None).holds().lbctl;
    // `script` is a terminal to what it runs.
    let said = |line: &str, no_color: Option<&str>| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{} {line}", lbctl.display()), "/dev/null"]);
        script.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("CLICOLOR");
        let output = script.envs(no_color.map(|value| ("NO_COLOR", value))).output();
        let output = output.expect("util-linux brings it");
        assert!(!output.stdout.is_empty(), "{line}: {output:?}");
        output.stdout.contains(&b'\x1b')
    };
    assert!(said("--help", None), "a terminal has colours");
    for line in ["--help", "get --help", "get nonsense", "--server unix:/nowhere get vips"] {
        assert!(!said(line, Some("1")), "{line}: NO_COLOR is set");
    }
    let piped = Command::new(&lbctl).arg("--help").output().expect("it runs");
    assert!(!piped.stdout.contains(&b'\x1b'));
}

#[test]
fn a_key_that_goes_ends_no_session_and_keeps_lbd_from_nothing() {
    let mut hello = Hello::up(Hook::Tc);
    let key = hello.lab.folder().join("lbd/node9.key");
    fs::write(&key, "s3cret\n").expect("there is room");
    let put = |hello: &Hello, path: &str, spec: serde_json::Value| {
        let name = path.rsplit('/').next();
        let body = serde_json::json!({"metadata": {"name": name}, "spec": spec}).to_string();
        hello.api.request("PUT", path, Some(&body)).holds()
    };
    let peer = |address: &str, file: &std::path::Path| serde_json::json!({"address": address, "asn": 64512, "md5_key_file": file});
    let made = put(&hello, "bgp/peers/node9", peer("10.0.1.99", &key));
    assert_eq!(made.status, 201, "{}", made.body);
    let refused = put(&hello, "bgp/peers/node8", peer("10.0.1.98", &key.with_extension("gone")));
    let problem = refused.problem().holds();
    assert_eq!((refused.status, problem.pointer.as_deref()), (422, Some("/spec/md5_key_file")));
    assert!(problem.detail.contains("lbd reads files below /etc"), "{}", problem.detail);

    fs::remove_file(&key).expect("it is there");
    let pool = serde_json::json!({"addresses": ["203.0.113.128/28"]});
    assert_eq!(put(&hello, "pools/p", pool).status, 201, "other changes are made");
    let warned = |hello: &Hello| hello.api.status().holds().warnings.join("\n");
    assert!(warned(&hello).contains("it has the key that was there"), "{}", warned(&hello));
    let has = |hello: &Hello| hello.api.peers().holds().iter().any(|peer| peer.name == "node9");
    assert!(has(&hello), "the neighbour is still there");

    hello.stop("lbd", Signal::SIGTERM);
    hello.start("lbd");
    hello.sessions_are_established();
    assert!(warned(&hello).contains("it is left out until then"), "{}", warned(&hello));
    assert!(!has(&hello) && hello.lbctl("doctor").holds().0.contains("node9.key"));
    fs::write(&key, "s3cret\n").expect("there is room");
    eventually("the neighbour is there again", SOON, || {
        ensure!(has(&hello) && !warned(&hello).contains("node9"), "{}", warned(&hello));
        Ok(())
    })
    .holds();
    let (text, _) = hello.lbctl("events").holds();
    assert!(text.contains("alarm-raised") && text.contains("alarm-cleared"), "{text}");
}

#[test]
fn lbd_starts_as_the_user_and_with_the_capabilities_of_its_unit() {
    let unit = include_str!("../../../lb-api/lbd.service");
    let set = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let set = set.expect("the unit says them").split(' ').map(|name| {
        format!(",+{}", name.strip_prefix("CAP_").expect("a capability").to_lowercase())
    });
    let set = format!("-all{}", set.collect::<String>());
    let (mut hello, vip) = Hello::up_with_vip(Hook::Tc);
    hello.stop("lbd", Signal::SIGTERM);
    // Where that user reaches it, wherever this repository lies.
    let folder = hello.lab.folder();
    let (program, config) = (folder.join("lbd-of-the-unit"), folder.join("lbd/lbd.yaml"));
    let built = Options::of(demo::TOPOLOGY, None, None).holds().lbd;
    fs::copy(built, &program).expect("there is room");
    let line = format!(
        "setpriv --reuid 64179 --regid 64179 --clear-groups --no-new-privs --inh-caps={set} --ambient-caps={set} \
         --bounding-set={set} {} -c {}",
        program.display(),
        config.display()
    );
    hello.lab.spawn("lbd", "unit", &line).holds();
    eventually("lbd answers", SOON, || hello.api.status()).holds();
    hello.upstream_routes_the_vip();
    hello.is_answered(&vip);
    let pid = hello.lab.process("lbd", "unit").holds().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    for name in ["CapEff:\t", "CapPrm:\t", "CapBnd:\t"] {
        let bits = field(name).and_then(|bits| u64::from_str_radix(bits, 16).ok());
        assert_eq!(bits, Some(CAPABILITIES), "{name}");
    }
    assert_eq!((field("Seccomp:\t"), field("CapAmb:\t")), (Some("2"), Some("0000000000000000")));
    assert!(field("Uid:\t").is_some_and(|ids| ids.starts_with("64179\t64179")));
}
