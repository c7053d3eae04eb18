//! What a change of the configuration costs, from the API to the maps and to the first packet, with ten thousand VIPs of ten
//! backends each (targets C1 to C3, D7 and P11).
//!
//! The daemon is the one that users run, over its socket and by `lbctl`, with its state on this machine's disk.

#[path = "../../../lb-dataplane/benches/dataplane/bounds.rs"]
mod bounds;
mod changes;
#[path = "../../../lb-dataplane/benches/fib/report.rs"]
#[expect(dead_code, reason = "this suite measures against bounds, not against peers")]
mod report;
mod wire;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration::lab::{Lab, Options};
use integration::wait::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::report::{Report, Series};

/// VIPs, and backends of each.
const VIPS: u32 = 10_000;
const BACKENDS: u32 = 10;
/// How often all of them are applied.
const APPLIES: usize = 5;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The allocator gives pages back when nothing has used them for so long, some at a time (jemalloc's `dirty_decay_ms`, and more).
const REST: Duration = Duration::from_secs(15);
/// How often it is waited for at most.
const REST_TRIES: usize = 6;
/// Where the server listens, at every address that it has.
const PORT: u16 = 7000;

fn main() -> Result<()> {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    say("bringing up a client, lbd and a server");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/config/network");
    let topology = folder.join("config.clab.yml");
    let mut lab = Lab::up(&Options::of(&topology.to_string_lossy(), None, None)?)?;
    serve(&lab)?;

    let mut report = Report::new("config");
    let alone = changes::of_one_of_a_hundred(&lab, "one other service")?;
    let file = lab.folder().join("vips.yaml");
    fs::write(&file, documents())?;
    apply(&lab, &file, &mut report)?;
    diff(&lab, &file, &mut report)?;
    let single = changes::of_one_vip(&lab, VIPS)?;
    report.bound("C2 one VIP of 10 k changed, REST to maps, p99", "ms", &single, 5.0);
    let among = changes::of_one_of_a_hundred(&lab, "10 k other services")?;
    let name = "D7 a backend of 100 changed, to a connection, p99";
    report.bound(&format!("{name}, alone"), "ms", &alone, 5.0);
    report.bound(&format!("{name}, among 10 k"), "ms", &among, 5.0);
    report.beside((name, "alone"), "ms", &among, &alone);
    restart(&mut lab, &mut report)?;
    let wire = wire::of_new_vips(&lab)?;
    report.bound("P11 a VIP over REST to UPDATEs at 200 peers, p99", "ms", &wire, 5.0);
    report.note("memory of lbd at rest, without maps", "MB", memory(&lab)?);
    report.write()
}

/// Tells whoever connects to any address of the server which one that was.
fn serve(lab: &Lab) -> Result<()> {
    let listener = lab.netns("server")?.within(|| TcpListener::bind(("0.0.0.0", PORT)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let Ok(here) = stream.local_addr() else { return };
                let _client_is_gone = writeln!(stream, "{}", here.ip());
                // What is kept open answers whatever it is asked.
                let Ok(mut back) = stream.try_clone() else { return };
                let _client_is_gone = std::io::copy(&mut stream, &mut back);
            });
        }
    });
    Ok(())
}

/// A VIP by its number.
fn vip(number: u32, weight: u32) -> Value {
    let [_, _, high, low] = number.to_be_bytes();
    let backends = (0..BACKENDS).map(|n| {
        let [_, _, three, four] = (number * BACKENDS + n).to_be_bytes();
        json!({"address": format!("10.3.{three}.{four}"), "port": PORT + n as u16, "weight": 1 + n % 3})
    });
    let mut backends: Vec<Value> = backends.collect();
    backends[0]["weight"] = json!(weight);
    json!({
        "metadata": {"name": format!("vip-{number}")},
        "spec": {
            "address": format!("100.65.{high}.{low}"), "port": 80,
            "health_check": {"kind": "none"}, "backends": backends,
        },
    })
}

fn documents() -> String {
    let documents = (0..VIPS).map(|number| vip(number, 1).to_string());
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// All of them from one file, by `lbctl`; they are removed in between.
fn apply(lab: &Lab, file: &Path, report: &mut Report) -> Result<()> {
    let (mut by_file, mut by_rest) = (Series::default(), Series::default());
    let all: Vec<Value> = (0..VIPS).map(|number| vip(number, 1)).collect();
    let body = json!({"vips": all}).to_string();
    for round in 1..=APPLIES {
        say(&format!("ten thousand VIPs, round {round} of {APPLIES}"));
        let start = Instant::now();
        let answer = lab.api().request("POST", "config?prune=true", Some(&body))?;
        by_rest.push(start.elapsed().as_secs_f64());
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        let empty = lab.api().request("POST", "config?prune=true", Some("{\"vips\": []}"))?;
        ensure!(empty.status == 200, "{}: {}", empty.status, empty.body);
        let start = Instant::now();
        let said = lbctl(lab, &["apply", "--prune", "-f", &file.to_string_lossy()])?;
        by_file.push(start.elapsed().as_secs_f64());
        ensure!(said.matches(" created").count() == VIPS as usize, "{said}");
        if round < APPLIES {
            let empty = lab.api().request("POST", "config?prune=true", Some("{\"vips\": []}"))?;
            ensure!(empty.status == 200, "{}: {}", empty.status, empty.body);
        }
    }
    let served = lab.api().vips()?;
    let serving = served.iter().filter(|vip| vip.status.as_ref().is_some_and(|s| s.serving));
    ensure!(serving.count() > VIPS as usize, "some of them are not in the maps");
    report.bound("C1 10 k VIPs of 10 backends applied from a file", "s", &by_file, 2.0);
    report.note("the same by one request", "s", by_rest.median());
    Ok(())
}

fn diff(lab: &Lab, file: &Path, report: &mut Report) -> Result<()> {
    let mut times = Series::default();
    for _ in 0..APPLIES {
        let start = Instant::now();
        let said = lbctl(lab, &["diff", "-f", &file.to_string_lossy()])?;
        times.push(start.elapsed().as_secs_f64());
        ensure!(said.is_empty(), "the diff of what was applied is not empty: {said}");
    }
    report.note("C3 diff of the same file, which is empty", "s", times.median());
    Ok(())
}

/// The daemon ends and starts again, over the maps that it left and over none.
fn restart(lab: &mut Lab, report: &mut Report) -> Result<()> {
    let mut times = Series::default();
    for _ in 0..3 {
        lab.stop("lbd", Signal::SIGTERM)?;
        let start = Instant::now();
        lab.start("lbd")?;
        let all = eventually("every VIP is served", READY_WITHIN, || Ok(lab.api().vips()?.len()))?;
        times.push(start.elapsed().as_secs_f64());
        ensure!(all >= VIPS as usize, "{all} VIPs after a restart");
    }
    report.note("restart with 10 k VIPs, to the first answer", "s", times.median());
    Ok(())
}

fn lbctl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("LBCTL_BIN").context("LBCTL_BIN is set by `cargo xtask`")?;
    let server = format!("unix:{}", lab.api().socket().display());
    let output = Command::new(program).args(["--server", &server]).args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lbctl {arguments:?}: {}: {error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Of the daemon itself, once its allocator has given back what it no longer uses; the maps that it has mapped are the kernel's,
/// and its program's pages everybody's.
fn memory(lab: &Lab) -> Result<f64> {
    let pid = lab.process("lbd", "lbd")?.pid();
    let anonymous = || -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.context("the kernel says no RssAnon")? / 1024.0)
    };
    let mut before = anonymous()?;
    for _ in 0..REST_TRIES {
        std::thread::sleep(REST);
        let now = anonymous()?;
        if now > 0.98 * before {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
