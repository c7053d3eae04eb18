//! What is measured: each scene starts the peer under test anew, and says its figures.

mod crowds;
mod steady;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::light::{self, Heard, Session};
use crate::network::{Family, Network};
use crate::peer::{Kind, Layout, Peer, Role, asn_of};
use crate::report::Series;
use crate::table::{Table, Told};

/// One peer's figures by name, one a round.
#[derive(Default)]
pub(crate) struct Figures(pub(crate) BTreeMap<&'static str, Series>);

impl Figures {
    fn push(&mut self, name: &'static str, value: f64) {
        self.0.entry(name).or_default().push(value);
    }
}

/// What the feeders say, encoded before.
pub(crate) struct Bench {
    pub(crate) network: Network,
    four: Feeds,
    six: Feeds,
    /// A thousand routes.
    few: Feeds,
}

/// Feeder 1 has the shortest paths.
struct Feeds {
    family: Family,
    /// By feeder.
    tables: Vec<Vec<u8>>,
    /// The first one's, another attribute in each route.
    changed: Vec<u8>,
    withdrawals: Vec<u8>,
    prefixes: u64,
}

/// Feeders at most.
pub(crate) const FEEDERS: u16 = 4;
const FEW: usize = 1000;
/// As many as the IPv6 table of the Internet has, in 2026.
const SIX: usize = 230_000;

impl Feeds {
    fn new(family: Family, limit: usize, feeders: u16) -> Result<Self> {
        let table = Table::read(family, limit)?;
        let told = |number: u16, edition| Told {
            asn: asn_of(number),
            next_hop: family.end(400 + number),
            longer: usize::from(number > 1),
            edition,
        };
        eprintln!(
            "==> {} prefixes with {} attribute sets",
            table.prefixes(),
            table.attribute_sets()
        );
        Ok(Self {
            family,
            tables: (1..=feeders).map(|number| table.updates(&told(number, 0))).collect(),
            changed: table.updates(&told(1, 1)),
            withdrawals: table.withdrawals(),
            prefixes: table.prefixes() as u64,
        })
    }
}

/// What one feeder of IPv4 says, and how many prefixes these are.
pub(crate) fn full_table(limit: usize) -> Result<(Vec<u8>, u64)> {
    let mut feeds = Feeds::new(Family::Four, limit, 1)?;
    Ok((feeds.tables.remove(0), feeds.prefixes))
}

impl Bench {
    pub(crate) fn new(network: Network, prefixes: usize) -> Result<Self> {
        Ok(Self {
            network,
            four: Feeds::new(Family::Four, prefixes, FEEDERS)?,
            six: Feeds::new(Family::Six, prefixes.min(SIX), 1)?,
            few: Feeds::new(Family::Four, prefixes.min(FEW), 1)?,
        })
    }

    /// One round of one peer: the scenes that are wanted. One that fails is told and left out; says whether any did.
    pub(crate) fn round(
        &self,
        kind: Kind,
        figures: &mut Figures,
        wanted: impl Fn(&str) -> bool,
    ) -> bool {
        type Scene = fn(&Bench, Kind, &mut Figures) -> Result<()>;
        let (all, fast, ours) = (true, kind != Kind::Frr, kind == Kind::Lbd);
        let scenes: [(&str, bool, Scene); 7] = [
            ("table", all, Self::one_feeder),
            ("sinks", all, Self::ten_sinks),
            ("feeders", all, Self::four_feeders),
            ("ipv6", all, Self::ipv6),
            ("many", fast, Self::many_sinks),
            ("idle", fast, Self::idle),
            ("bounce", ours, Self::bounce),
        ];
        let mut failed = false;
        for (name, applies, scene) in scenes {
            if applies
                && wanted(name)
                && let Err(error) = scene(self, kind, figures)
            {
                eprintln!("{name} could not be measured of {}: {error:#}", kind.name());
                failed = true;
            }
        }
        failed
    }

    /// Everything established, nothing sent.
    fn scene(&self, kind: Kind, layout: &Layout) -> Result<Scene> {
        let mut peer = Peer::start(kind, &self.network, layout)?;
        let since = Instant::now();
        let (mut feeders, mut heard, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (number, role) in layout.ends() {
            let session = Session::open(layout, number)?;
            match role {
                Role::Feeder => feeders.push(session),
                Role::Sink | Role::Both => {
                    kept.push(session.twin()?);
                    heard.push(light::sink(session, since));
                }
            }
        }
        peer.settle()?;
        Ok(Scene { peer, feeders, heard, kept, since })
    }
}

/// A peer between its ends.
struct Scene {
    peer: Peer,
    feeders: Vec<Session>,
    heard: Vec<Arc<Heard>>,
    /// The sinks' sessions, for keepalives.
    kept: Vec<Session>,
    /// What times are relative to.
    since: Instant,
}

impl Scene {
    /// From the first byte of a feeder to the last prefix at the last sink.
    fn feed(&mut self, feeder: usize, updates: &[u8], prefixes: u64) -> Result<f64> {
        let start = Instant::now();
        let before = self.announced();
        self.feeders[feeder].feed_since(start, updates)?;
        let Self { peer, heard, .. } = self;
        let all = || heard.iter().zip(&before).all(|(it, &was)| it.announced() >= was + prefixes);
        peer.until_since(start, "every sink has heard of every prefix", all)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn announced(&self) -> Vec<u64> {
        self.heard.iter().map(|heard| heard.announced()).collect()
    }

    fn until_announced(&mut self, before: &[u64], prefixes: u64) -> Result<f64> {
        let Self { peer, heard, .. } = self;
        let all = || heard.iter().zip(before).all(|(it, &was)| it.announced() >= was + prefixes);
        peer.until("every sink has heard of every prefix", all)
    }

    fn until_withdrawn(&mut self, prefixes: u64) -> Result<f64> {
        let Self { peer, heard, .. } = self;
        let all = || heard.iter().all(|heard| heard.withdrawn() >= prefixes);
        peer.until("every prefix is withdrawn at every sink", all)
    }
}
