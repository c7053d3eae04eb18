//! Hundreds of neighbours: told a little, told nothing, and back all at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Bench, Figures};
use crate::light::{Crowd, Session};
use crate::network::ENDS;
use crate::peer::{Kind, Layout, Peer};
use crate::table::update;

const SINKS: u16 = 200;
const HOLD_TIME_SECS: u16 = 9;
/// How long idleness is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Routes of each neighbour that bounces.
const ROUTES: u16 = 3;

impl Bench {
    /// A thousand routes to two hundred sinks.
    pub(super) fn many_sinks(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let layout = Layout::new(1, SINKS);
        let mut peer = Peer::start(kind, &self.network, &layout)?;
        let mut sessions = Session::open_all(&layout)?;
        let mut feeder = sessions.remove(0);
        let crowd = Crowd::start(sessions, false);
        peer.settle()?;
        let start = Instant::now();
        feeder.feed(&self.few.tables[0])?;
        peer.until("every sink has heard", || crowd.all_heard(self.few.prefixes))?;
        figures.push("P7", start.elapsed().as_secs_f64());
        crowd.stop()
    }

    /// What it costs that five hundred neighbours are there.
    pub(super) fn idle(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let layout = Layout { hold_time_secs: HOLD_TIME_SECS, ..Layout::new(0, ENDS) };
        let peer = Peer::start(kind, &self.network, &layout)?;
        let crowd = Crowd::start(Session::open_all(&layout)?, true);
        // Two rounds of keepalives, so that their beginnings are spread.
        thread::sleep(Duration::from_secs(6));
        let (cpu, start) = (peer.cpu()?, Instant::now());
        thread::sleep(IDLE);
        figures.push("P8", 100.0 * (peer.cpu()? - cpu) / start.elapsed().as_secs_f64());
        crowd.stop()
    }

    /// Five hundred neighbours with a few routes each go at once, and return at once.
    pub(super) fn bounce(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let layout = Layout { both: ENDS, ..Layout::new(0, 0) };
        let mut peer = Peer::start(kind, &self.network, &layout)?;
        let others = u64::from((ENDS - 1) * ROUTES);
        let crowd = come(&layout)?;
        peer.until("everybody has heard of everybody", || crowd.all_heard(others))?;
        peer.settle()?;
        let start = Instant::now();
        crowd.stop()?;
        let crowd = come(&layout)?;
        peer.until("everybody has heard of everybody again", || crowd.all_heard(others))?;
        figures.push("P10", start.elapsed().as_secs_f64());
        crowd.stop()
    }
}

fn come(layout: &Layout) -> Result<Crowd> {
    let mut sessions = Session::open_all(layout)?;
    for ((number, _), session) in layout.ends().zip(&mut sessions) {
        session.feed(&routes(layout, number))?;
    }
    Ok(Crowd::start(sessions, false))
}

/// An end's own routes.
fn routes(layout: &Layout, number: u16) -> Vec<u8> {
    let asn = crate::peer::asn_of(number).to_be_bytes();
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    attributes.extend(asn);
    if let std::net::IpAddr::V4(next_hop) = layout.family.end(number) {
        attributes.extend([0x40, 3, 4]);
        attributes.extend(next_hop.octets());
    }
    let [high, low] = number.to_be_bytes();
    let prefixes = (0..ROUTES).flat_map(|route| [26, 20, high, low, route.to_be_bytes()[1] << 6]);
    let mut bytes = Vec::new();
    update(&[], &attributes, &[], &prefixes.collect::<Vec<_>>(), &mut bytes);
    bytes
}
