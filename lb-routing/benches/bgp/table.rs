//! A real routing table as UPDATEs: prefixes and origin ASes from the `rotonda-store` crate's CSV, attributes made from
//! the origin AS.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::network::Family;

const CSV: &str = "data/uniq_pfx_asn_dfz_rnd.csv";
const MAX_MESSAGE: usize = 4096;

/// What a feeder says of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Its AS.
    pub(crate) asn: u32,
    pub(crate) next_hop: IpAddr,
    /// ASes more in each path, which make it the lesser choice.
    pub(crate) longer: usize,
    /// Tells apart tables that differ in an attribute of each route.
    pub(crate) edition: u8,
}

/// Prefixes by origin AS, as they stand in an UPDATE.
pub(crate) struct Table {
    origins: BTreeMap<u32, Vec<Vec<u8>>>,
    prefixes: usize,
}

impl Table {
    /// The first `limit` lines of the CSV; a prefix that stands there twice counts once. Of IPv6 there are none: the
    /// same addresses stand behind 2a00::/16 then.
    pub(crate) fn read(family: Family, limit: usize) -> Result<Self> {
        let path = folder()?.join(CSV);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let mut origins = BTreeMap::<u32, Vec<Vec<u8>>>::new();
        let mut seen = HashSet::new();
        for line in text.lines().skip(1).filter(|line| !line.is_empty()).take(limit) {
            let fields: Vec<&str> = line.split(',').collect();
            ensure!(fields.len() == 3, "a line of the CSV is not address, length, AS: {line}");
            let (address, len, asn) = (fields[0].parse()?, fields[1].parse()?, fields[2].parse()?);
            let prefix = nlri(family, address, len);
            if seen.insert(prefix.clone()) {
                origins.entry(asn).or_default().push(prefix);
            }
        }
        ensure!(!seen.is_empty(), "the CSV has no prefixes");
        Ok(Self { origins, prefixes: seen.len() })
    }

    pub(crate) const fn prefixes(&self) -> usize {
        self.prefixes
    }

    pub(crate) fn attribute_sets(&self) -> usize {
        self.origins.len()
    }

    /// One attribute set for each origin, its prefixes packed.
    pub(crate) fn updates(&self, told: &Told) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (&origin, prefixes) in &self.origins {
            let attributes = attributes(told, origin);
            let reach = reach(told.next_hop);
            for field in fields(prefixes, attributes.len() + reach.len()) {
                update(&[], &attributes, &reach, &field, &mut bytes);
            }
        }
        bytes
    }

    /// Withdraws everything.
    pub(crate) fn withdrawals(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for prefixes in self.origins.values() {
            for field in fields(prefixes, 0) {
                update(&field, &[], &[], &[], &mut bytes);
            }
        }
        bytes
    }
}

/// Prefixes in portions that fit beside so many octets.
fn fields(prefixes: &[Vec<u8>], others: usize) -> Vec<Vec<u8>> {
    let room = MAX_MESSAGE - 23 - others;
    let mut fields = vec![Vec::new()];
    for prefix in prefixes {
        if fields.last().is_some_and(|field| field.len() + prefix.len() > room) {
            fields.push(Vec::new());
        }
        if let Some(field) = fields.last_mut() {
            field.extend(prefix);
        }
    }
    fields
}

/// Where cargo keeps the crate.
fn folder() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bgp/data/Cargo.toml");
    let arguments =
        ["metadata", "--offline", "--locked", "--format-version", "1", "--manifest-path", manifest];
    let output = Command::new(cargo).args(arguments).output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the routes are not there: run `cargo fetch --manifest-path {manifest}`"
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "rotonda-store");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = PathBuf::from(manifest.context("rotonda-store is no dependency")?);
    manifest.parent().map(PathBuf::from).context("a manifest stands in a folder")
}

fn nlri(family: Family, address: Ipv4Addr, len: u8) -> Vec<u8> {
    let octets = address.octets();
    let octets = &octets[..usize::from(len).div_ceil(8)];
    match family {
        Family::Four => [&[len], octets].concat(),
        Family::Six => [&[16 + len, 0x2a, 0], octets].concat(),
    }
}

/// MP_REACH_NLRI up to its prefixes, for an IPv6 next hop; its length is filled in with them.
fn reach(next_hop: IpAddr) -> Vec<u8> {
    match next_hop {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(next_hop) => {
            [&[0x90, 14, 0, 0, 0, 2, 1, 16], &next_hop.octets()[..], &[0]].concat()
        }
    }
}

/// ORIGIN, an AS_PATH of 2 to 6 ASes that ends with the origin, NEXT_HOP, MED for some, up to 7 communities.
fn attributes(told: &Told, origin: u32) -> Vec<u8> {
    let dice = u64::from(origin).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut path = vec![told.asn; 1 + told.longer];
    path.extend((0..dice % 5).map(|hop| 3000 + u32::try_from((dice >> hop) % 997).unwrap_or(0)));
    path.push(origin);
    let mut attributes =
        vec![0x40, 1, 1, (u8::from(dice.is_multiple_of(7)) * 2 + told.edition) % 3];
    let count = u8::try_from(path.len()).unwrap_or(u8::MAX);
    attributes.extend([0x40, 2, 2 + 4 * count, 2, count]);
    attributes.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    if let IpAddr::V4(next_hop) = told.next_hop {
        attributes.extend([0x40, 3, 4]);
        attributes.extend(next_hop.octets());
    }
    if dice.is_multiple_of(3) {
        attributes.extend([0x80, 4, 4, 0, 0, 0, 50]);
    }
    let communities = u8::try_from(dice >> 8 & 7).unwrap_or(0);
    if communities > 0 {
        attributes.extend([0xc0, 8, 4 * communities]);
        for number in 0..communities {
            attributes.extend([0x0b, 0xb8, origin.to_be_bytes()[3], number]);
        }
    }
    attributes
}

/// Appends an UPDATE. Where there is a `reach`, the prefixes stand in it.
pub(crate) fn update(
    withdrawn: &[u8],
    attributes: &[u8],
    reach: &[u8],
    prefixes: &[u8],
    bytes: &mut Vec<u8>,
) {
    let length = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    let mut reach = reach.to_vec();
    let nlri = if reach.is_empty() { prefixes } else { &[] };
    if !reach.is_empty() {
        reach.extend(prefixes);
        let octets = length(reach.len() - 4);
        reach[2..4].copy_from_slice(&octets);
    }
    bytes.extend([0xff; 16]);
    bytes.extend(length(23 + withdrawn.len() + reach.len() + attributes.len() + nlri.len()));
    bytes.push(2);
    bytes.extend(length(withdrawn.len()));
    bytes.extend(withdrawn);
    bytes.extend(length(reach.len() + attributes.len()));
    bytes.extend(reach);
    bytes.extend(attributes);
    bytes.extend(nlri);
}
