//! One change after the other, each waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration::lab::Lab;
use integration::wait::eventually;
use serde_json::{Value, json};

use crate::report::Series;
use crate::{PORT, READY_WITHIN, say, vip};

/// Rounds; each gives its 99th percentile.
const ROUNDS: usize = 5;
/// Changes in a round.
const CHANGES: u32 = 300;
/// Backends of the service of which one changes.
const HUNDRED: u8 = 100;
/// Connections that live through all changes of a round.
const KEPT: usize = 50;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const SERVICE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// A weight of one VIP after another changes: milliseconds from request to answer, which says that the maps have it.
pub(crate) fn of_one_vip(lab: &Lab, vips: u32) -> Result<Series> {
    let api = lab.api();
    let mut all = Series::default();
    for round in 0..ROUNDS as u32 {
        say(&format!("changes of one VIP, round {} of {ROUNDS}", round + 1));
        let mut times = Vec::new();
        for n in 0..CHANGES {
            // All over the ten thousand.
            let number = (round * CHANGES + n) * 7919 % vips;
            let changed = vip(number, 2 + round);
            let start = Instant::now();
            let answer = api.try_put_vip(&format!("vip-{number}"), &changed)?;
            times.push(start.elapsed());
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        }
        all.push(high(times));
    }
    Ok(all)
}

/// A backend leaves a service of a hundred and comes back: milliseconds from the request to a connection that the new table
/// has placed. Connections that were there before live on.
pub(crate) fn of_one_of_a_hundred(lab: &Lab, beside: &str) -> Result<Series> {
    let client = lab.netns("client")?;
    put(lab, None)?;
    eventually("the service carries connections", READY_WITHIN, || client.within(connect)?)?;
    let mut all = Series::default();
    for round in 1..=ROUNDS {
        say(&format!("changes of one backend beside {beside}, round {round} of {ROUNDS}"));
        let mut kept = (0..KEPT).map(|_| client.within(connect)?).collect::<Result<Vec<_>>>()?;
        let mut times = Vec::new();
        for n in 0..CHANGES {
            let gone = (n % 2 == 0).then_some((n / 2 % u32::from(HUNDRED)) as u8);
            let start = Instant::now();
            put(lab, gone)?;
            let (_, backend) = client.within(connect)??;
            times.push(start.elapsed());
            let left = gone.map(|gone| Ipv4Addr::new(10, 3, 255, gone));
            ensure!(left != Some(backend), "a connection went to {backend}, which had left");
        }
        for (stream, backend) in &mut kept {
            echo(stream).with_context(|| format!("a connection to {backend} broke"))?;
        }
        all.push(high(times));
    }
    Ok(all)
}

fn put(lab: &Lab, gone: Option<u8>) -> Result<()> {
    let there = (0..HUNDRED).filter(|n| Some(*n) != gone);
    let backends: Vec<Value> =
        there.map(|n| json!({"address": format!("10.3.255.{n}"), "port": PORT})).collect();
    let body = json!({
        "metadata": {"name": "hundred", "owner": "bench"},
        "spec": {
            "address": SERVICE, "port": 80, "health_check": {"kind": "none"}, "backends": backends,
        },
    });
    let answer = lab.api().try_put_vip("hundred", &body)?;
    ensure!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    Ok(())
}

/// A new connection, and the backend that it went to.
fn connect() -> Result<(TcpStream, Ipv4Addr)> {
    let stream = TcpStream::connect_timeout(&(SERVICE, 80).into(), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_nodelay(true)?;
    let mut line = String::new();
    BufReader::with_capacity(64, &stream).read_line(&mut line)?;
    Ok((stream, line.trim().parse().with_context(|| format!("the server said {line:?}"))?))
}

fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0; 4];
    stream.write_all(b"echo")?;
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"echo", "the server said {answer:?}");
    Ok(())
}

/// The 99th percentile in milliseconds.
pub(crate) fn high(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let place = (times.len() * 99 / 100).saturating_sub(1);
    times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
