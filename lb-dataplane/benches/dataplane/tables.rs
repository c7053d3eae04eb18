//! The dataplane's maps, as a benchmark reads and writes them by hand.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::MapData;
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::{FlowEntry, FlowKey};

use crate::rig::{Rig, pin};

/// What packets of a direction have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between {
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// A key as the table of its family has it.
enum Key {
    V4(FlowKey<V4>),
    V6(FlowKey<V6>),
}

impl Between {
    fn key(&self) -> Key {
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [source, destination] = [from, to].map(|a| u32::from_ne_bytes(a.octets()));
                Key::V4(self.with(source, destination))
            }
            (from, to) => {
                let [source, destination] = [from, to].map(words6);
                Key::V6(self.with(source, destination))
            }
        }
    }

    fn with<A>(&self, source: A, destination: A) -> FlowKey<A> {
        FlowKey {
            source,
            destination,
            source_port: self.from.port().to_be(),
            destination_port: self.to.port().to_be(),
            protocol: self.protocol.into(),
            pad: 0,
        }
    }
}

fn words6(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

impl Rig {
    fn entry(&self, between: &Between) -> Result<FlowEntry> {
        let entry = match between.key() {
            Key::V4(key) => self.flows.get(&key),
            Key::V6(key) => self.flows6.get(&key),
        };
        entry.with_context(|| format!("no flow of {between:?}"))
    }

    /// Source and destination that these packets are given.
    pub(crate) fn translated(&self, between: &Between) -> Result<[SocketAddr; 2]> {
        let to = self.entry(between)?.translation;
        let end = |address: [u32; 4], port: u16| {
            let [a, b, c, d] = address.map(|word| u128::from(u32::from_be(word)));
            let address = Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical();
            SocketAddr::new(address, u16::from_be(port))
        };
        Ok([end(to.source, to.source_port), end(to.destination, to.destination_port)])
    }

    /// Makes packets of a direction look as if the last one had come so many ticks earlier.
    pub(crate) fn silence(&self, between: &Between, ticks: u32) -> Result<()> {
        let mut entry = self.entry(between)?;
        entry.last_seen = entry.last_seen.wrapping_sub(ticks);
        let is_put = match between.key() {
            Key::V4(key) => self.flows.put(&key, &entry),
            Key::V6(key) => self.flows6.put(&key, &entry),
        };
        is_put.map_err(|error| anyhow!("{error:?}"))
    }

    pub(crate) fn remove(&self, between: &Between) -> Result<()> {
        let is_removed = match between.key() {
            Key::V4(key) => self.flows.remove(&key),
            Key::V6(key) => self.flows6.remove(&key),
        };
        ensure!(is_removed, "no flow of {between:?}");
        Ok(())
    }

    /// Takes both directions of a flow out of the table, by how its packets come there.
    pub(crate) fn forget(&mut self, there: &Between) -> Result<()> {
        let [to, from] = self.translated(there)?;
        self.remove(there)?;
        self.remove(&Between { from, to, ..*there })
    }

    /// Bytes of kernel memory of all the dataplane's maps, as the kernel counts them.
    pub(crate) fn memory(&self) -> Result<u64> {
        let mut bytes = 0;
        let folder = pin(&self.options, "FLOWS")?;
        for entry in fs::read_dir(folder.parent().context("pins have a folder")?)? {
            let map = MapData::from_pin(entry?.path())?;
            let fd = map.fd().as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += line.context("the kernel does not tell")?.trim().parse::<u64>()?;
        }
        Ok(bytes)
    }
}
