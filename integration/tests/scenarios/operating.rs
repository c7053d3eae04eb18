//! What an operator does: looks for what is wrong, with `lbctl` and without.

use anyhow::{Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;

use crate::hello::{Hello, Holds, SOON};

impl Hello {
    /// A command's output and exit code.
    fn lbctl(&self, line: &str) -> Result<(String, u8)> {
        let said = self.lab.run("lbd", &format!("lbctl {line} 2>&1; echo $?"))?;
        let (text, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
        Ok((text.to_owned(), code.parse()?))
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
    let (hello, _vip) = Hello::up_with_vip(Hook::Tc);
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
    hello.lab.run("lbd", "ip link set eth1 down").holds();
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
