//! A full table: announced, changed, withdrawn, and its feeders lost.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Bench, FEEDERS, Feeds, Figures};
use crate::light::{self, Heard, Session};
use crate::network::Family;
use crate::peer::{self, Kind, Layout};

const SINKS: u16 = 10;

impl Bench {
    /// Feeder to sink without a peer between them.
    pub(crate) fn floor(&self) -> Result<f64> {
        let Feeds { tables, prefixes, .. } = &self.four;
        let listener = TcpListener::bind(light::any_port(Family::Four.end(1)))?;
        let to = listener.local_addr()?;
        let start = Instant::now();
        let accepting = thread::spawn(move || -> Result<Arc<Heard>> {
            let (stream, _) = listener.accept()?;
            Ok(light::sink(Session::greet(stream, 1, 0)?, start))
        });
        let mut feeder = Session::greet(TcpStream::connect(to)?, 2, 0)?;
        let heard = accepting.join().ok().context("the sink panicked")??;
        let start = Instant::now();
        feeder.feed(&tables[0])?;
        while heard.announced() < *prefixes {
            ensure!(start.elapsed().as_secs() < 60, "the floor takes more than a minute");
            thread::yield_now();
        }
        Ok(start.elapsed().as_secs_f64())
    }

    pub(super) fn one_feeder(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let Feeds { tables, changed, withdrawals, prefixes, .. } = &self.four;
        let mut scene = self.scene(kind, &Layout::new(1, 1))?;
        let (resident, peer_cpu, ends_cpu) =
            (scene.peer.resident()?, scene.peer.cpu()?, peer::cpu("self")?);
        figures.push("P1", scene.feed(0, &tables[0], *prefixes)?);
        figures.push("CPU", scene.peer.cpu()? - peer_cpu);
        figures.push("ends' CPU", peer::cpu("self")? - ends_cpu);
        scene.peer.settle()?;
        figures.push("P3", (scene.peer.resident()? - resident) / *prefixes as f64);
        figures.push("churn", scene.feed(0, changed, *prefixes)?);
        scene.peer.settle()?;
        let start = Instant::now();
        scene.feeders[0].feed(withdrawals)?;
        scene.until_withdrawn(*prefixes)?;
        figures.push("withdrawal", start.elapsed().as_secs_f64());
        scene.peer.settle()?;
        scene.feed(0, &tables[0], *prefixes)?;
        scene.peer.settle()?;
        scene.feeders.remove(0).lose()?;
        figures.push("P6", scene.until_withdrawn(2 * prefixes)?);
        Ok(())
    }

    pub(super) fn ten_sinks(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let mut scene = self.scene(kind, &Layout::new(1, SINKS))?;
        figures.push("P2", scene.feed(0, &self.four.tables[0], self.four.prefixes)?);
        Ok(())
    }

    pub(super) fn four_feeders(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let Feeds { tables, prefixes, .. } = &self.four;
        let mut scene = self.scene(kind, &Layout::new(FEEDERS, 1))?;
        let resident = scene.peer.resident()?;
        scene.feed(0, &tables[0], *prefixes)?;
        for (feeder, updates) in scene.feeders.iter_mut().zip(tables).skip(1) {
            feeder.feed(updates)?;
            scene.peer.settle()?;
        }
        figures.push("P4", (scene.peer.resident()? - resident) / *prefixes as f64);
        let before = scene.announced();
        scene.feeders.remove(0).lose()?;
        figures.push("P5", scene.until_announced(&before, *prefixes)?);
        Ok(())
    }

    pub(super) fn ipv6(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let Feeds { family, tables, prefixes, .. } = &self.six;
        let layout = Layout { family: *family, ..Layout::new(1, 1) };
        let mut scene = self.scene(kind, &layout)?;
        figures.push("IPv6", scene.feed(0, &tables[0], *prefixes)?);
        scene.peer.settle()?;
        scene.feeders.remove(0).lose()?;
        figures.push("IPv6 lost", scene.until_withdrawn(*prefixes)?);
        Ok(())
    }

    /// A peer that is measured once, and given up after two minutes.
    pub(crate) fn once(&self, kind: Kind) -> Result<f64> {
        let mut scene = self.scene(kind, &Layout::new(1, 1))?;
        scene.feed(0, &self.four.tables[0], self.four.prefixes)
    }
}
