//! A real routing table as UPDATEs: prefixes and origin ASes from the `rotonda-store` crate's CSV, attributes made from
//! the origin AS.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const CSV: &str = "data/uniq_pfx_asn_dfz_rnd.csv";
const MAX_MESSAGE: usize = 4096;

/// Prefixes by origin AS, as they stand in an UPDATE.
pub(crate) struct Table {
    origins: BTreeMap<u32, Vec<Vec<u8>>>,
    prefixes: usize,
}

impl Table {
    /// The first `limit` lines of the CSV; a prefix that stands there twice counts once.
    pub(crate) fn read(limit: usize) -> Result<Self> {
        let path = folder()?.join(CSV);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let mut origins = BTreeMap::<u32, Vec<Vec<u8>>>::new();
        let mut seen = HashSet::new();
        for line in text.lines().skip(1).filter(|line| !line.is_empty()).take(limit) {
            let fields: Vec<&str> = line.split(',').collect();
            ensure!(fields.len() == 3, "a line of the CSV is not address, length, AS: {line}");
            let (address, len, asn) = (fields[0].parse()?, fields[1].parse()?, fields[2].parse()?);
            let prefix = nlri(address, len);
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

    /// What the feeder of this AS sends: one attribute set for each origin, its prefixes packed. `longer` ASes more in
    /// the path make the feeder the lesser choice.
    pub(crate) fn updates(&self, asn: u32, next_hop: Ipv4Addr, longer: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (&origin, prefixes) in &self.origins {
            let attributes = attributes(asn, origin, next_hop, longer);
            let room = MAX_MESSAGE - 23 - attributes.len();
            let mut field = Vec::new();
            for prefix in prefixes {
                if field.len() + prefix.len() > room {
                    update(&attributes, &field, &mut bytes);
                    field.clear();
                }
                field.extend(prefix);
            }
            update(&attributes, &field, &mut bytes);
        }
        bytes
    }
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

fn nlri(address: Ipv4Addr, len: u8) -> Vec<u8> {
    let octets = address.octets();
    let mut field = vec![len];
    field.extend(&octets[..usize::from(len).div_ceil(8)]);
    field
}

/// ORIGIN, an AS_PATH of 2 to 6 ASes that ends with the origin, NEXT_HOP, MED for some, up to 7 communities.
fn attributes(asn: u32, origin: u32, next_hop: Ipv4Addr, longer: usize) -> Vec<u8> {
    let dice = u64::from(origin).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut path = vec![asn; 1 + longer];
    path.extend((0..dice % 5).map(|hop| 3000 + u32::try_from((dice >> hop) % 997).unwrap_or(0)));
    path.push(origin);
    let mut attributes = vec![0x40, 1, 1, u8::from(dice.is_multiple_of(7)) * 2];
    let count = u8::try_from(path.len()).unwrap_or(u8::MAX);
    attributes.extend([0x40, 2, 2 + 4 * count, 2, count]);
    attributes.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    attributes.extend([0x40, 3, 4]);
    attributes.extend(next_hop.octets());
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

fn update(attributes: &[u8], prefixes: &[u8], bytes: &mut Vec<u8>) {
    let length = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend([0xff; 16]);
    bytes.extend(length(23 + attributes.len() + prefixes.len()));
    bytes.extend([2, 0, 0]);
    bytes.extend(length(attributes.len()));
    bytes.extend(attributes);
    bytes.extend(prefixes);
}
