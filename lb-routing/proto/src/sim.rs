//! Networks of speakers in virtual time, seeded: whatever happens to connections, links and hosts, once
//! it stops everybody knows what a naive reference computes.
//!
//! A seed is a whole story: the topology with its policies ([`world`]), the latencies that reorder
//! events between connections ([`net`]), the faults ([`story`]). `LBD_SIM_SEED=n` runs one alone, `LBD_SIM_SEEDS=n` as many,
//! which `cargo xtask sim` says.

mod net;
mod reference;
mod story;
mod world;

use std::hash::Hasher;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::net::Net;
use self::world::World;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;

/// Names the seed when a test fails under it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: LBD_SIM_SEED={}", self.0);
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("LBD_SIM_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("LBD_SIM_SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            0..std::env::var("LBD_SIM_SEEDS")
                .map_or(SEEDS, |seeds| seeds.parse().expect("LBD_SIM_SEEDS is a number"))
        }
    }
}

/// One seed is looked at alone.
fn seeds_are_one() -> bool {
    std::env::var_os("LBD_SIM_SEED").is_some()
}

fn run(seed: u64) -> Net {
    let world = World::random(seed);
    let mut net = Net::new(world, seed);
    story::tell(&mut net, seed);
    net
}

#[test]
fn every_speaker_knows_what_the_reference_says_once_faults_stop() {
    let seeds = Mutex::new(seeds());
    let (paths, several) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = seeds.lock().expect("nobody panics while holding it").next();
                    let Some(seed) = next else { break };
                    let _named = Seed(seed);
                    let net = run(seed);
                    let (compared, has_several) = reference::check(&net);
                    paths.fetch_add(compared, Ordering::Relaxed);
                    several.fetch_add(has_several.into(), Ordering::Relaxed);
                }
            });
        }
    });
    let paths = paths.into_inner();
    assert!(paths > 0, "the worlds must have learned routes to compare");
    // One seed may have none.
    assert!(
        several.into_inner() > 0 || seeds_are_one(),
        "some must have several paths by RFC 7911"
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..5 {
        let _named = Seed(seed);
        assert_eq!(run(seed).digest.finish(), run(seed).digest.finish());
    }
}
