//! The dataplane's maps, as a benchmark reads and writes them by hand.

use std::fs;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use lb_dataplane_common::family::V6;
use lb_dataplane_common::flow::{FlowEntry, FlowKey, Translation};

use crate::rig::{Rig, pin};

/// A flow table, keys and entries as bytes.
type Flows<'a, const KEY: usize> = HashMap<&'a mut MapData, [u8; KEY], [u8; 64]>;

/// What packets of a direction have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between {
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// A key as the table of its family has it.
enum Key {
    V4([u8; 16]),
    V6([u8; 40]),
}

impl Between {
    fn key(&self) -> Key {
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [source, destination] = [from, to].map(|a| u32::from_ne_bytes(a.octets()));
                Key::V4(bytes(&self.with(source, destination).to_words()))
            }
            (from, to) => {
                let [source, destination] = [from, to].map(words6);
                Key::V6(bytes(&self.with(source, destination).to_words()))
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

fn bytes<const N: usize>(words: &[u16]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, word) in bytes.chunks_mut(2).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

impl Rig {
    fn flows<const KEY: usize>(&mut self, name: &str) -> Result<Flows<'_, KEY>> {
        Ok(self.dataplane.map_mut(name).with_context(|| name.to_owned())?.try_into()?)
    }

    fn entry(&mut self, between: &Between) -> Result<[u8; 64]> {
        let entry = match between.key() {
            Key::V4(key) => self.flows("FLOWS")?.get(&key, 0),
            Key::V6(key) => self.flows("FLOWS6")?.get(&key, 0),
        };
        entry.with_context(|| format!("no flow of {between:?}"))
    }

    /// Source and destination that these packets are given.
    pub(crate) fn translated(&mut self, between: &Between) -> Result<[SocketAddr; 2]> {
        const SOURCE: usize = offset_of!(Translation<V6>, source);
        const DESTINATION: usize = offset_of!(Translation<V6>, destination);
        const SOURCE_PORT: usize = offset_of!(Translation<V6>, source_port);
        const DESTINATION_PORT: usize = offset_of!(Translation<V6>, destination_port);
        let entry = &self.entry(between)?[offset_of!(FlowEntry, translation)..];
        let end = |address: usize, port: usize| -> Result<SocketAddr> {
            let octets: [u8; 16] = entry[address..address + 16].try_into()?;
            let port = u16::from_be_bytes([entry[port], entry[port + 1]]);
            Ok((Ipv6Addr::from(octets).to_canonical(), port).into())
        };
        Ok([end(SOURCE, SOURCE_PORT)?, end(DESTINATION, DESTINATION_PORT)?])
    }

    /// Makes packets of a direction look as if the last one had come so many ticks earlier.
    pub(crate) fn silence(&mut self, between: &Between, ticks: u32) -> Result<()> {
        const LAST_SEEN: usize = offset_of!(FlowEntry, last_seen);
        let mut entry = self.entry(between)?;
        let bytes: &mut [u8; 4] = (&mut entry[LAST_SEEN..LAST_SEEN + 4]).try_into()?;
        *bytes = u32::from_ne_bytes(*bytes).wrapping_sub(ticks).to_ne_bytes();
        match between.key() {
            Key::V4(key) => self.flows("FLOWS")?.insert(key, entry, 0)?,
            Key::V6(key) => self.flows("FLOWS6")?.insert(key, entry, 0)?,
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, between: &Between) -> Result<()> {
        match between.key() {
            Key::V4(key) => self.flows("FLOWS")?.remove(&key)?,
            Key::V6(key) => self.flows("FLOWS6")?.remove(&key)?,
        }
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
