//! What a VIP may say of where its flows come from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_api_types::vip::{Backend, Nat, NatMode, Protocol};

use super::{MAX_SOURCE_ADDRESSES, MODES, life, unfit};
use crate::read::{Cursor, Object};

pub(super) fn read(cursor: &Cursor<'_>, protocol: Option<Protocol>) -> Option<Nat> {
    let nat = cursor.object(&["mode", "source_addresses", "on_exhaustion"])?;
    let mode = nat.field("mode").map_or(Some(NatMode::default()), |mode| mode.one_of(MODES));
    let on_exhaustion = life::on_exhaustion(&nat, protocol, mode);
    let Some(listed) = nat.field("source_addresses") else {
        return Some(Nat {
            mode: mode?,
            source_addresses: Vec::new(),
            on_exhaustion: on_exhaustion?,
        });
    };
    let mut seen = BTreeSet::new();
    let addresses = listed.list(|cursor| {
        let address = cursor.address()?;
        if let Some(what) = unfit(address) {
            return cursor.wrong(format!("is {address}, {what}: flows come from none such"));
        }
        if !seen.insert(address) {
            return cursor.wrong(format!("repeats the address {address}: list it once"));
        }
        Some(address)
    })?;
    if addresses.len() > MAX_SOURCE_ADDRESSES {
        let count = addresses.len();
        return listed
            .wrong(format!("lists {count} addresses, but {MAX_SOURCE_ADDRESSES} are the most"));
    }
    let takes_some = |mode| matches!(mode, NatMode::FullNat | NatMode::OneArm);
    if !addresses.is_empty() && mode.is_some_and(|mode| !takes_some(mode)) {
        return listed.wrong(
            "is only for `mode: full-nat` and `mode: one-arm`: set the mode, or leave the addresses out",
        );
    }
    Some(Nat { mode: mode?, source_addresses: addresses, on_exhaustion: on_exhaustion? })
}

/// Flows come from addresses of their backend's family: with full NAT each has to have one, and others would never be used. Where there is
/// none for a backend, nothing more is said of the rest.
pub(super) fn check_sources(
    spec: &Object<'_>,
    nat: Option<&Nat>,
    backends: &[Backend],
) -> Option<()> {
    let Some(nat) = nat.filter(|nat| !nat.source_addresses.is_empty()) else { return Some(()) };
    let is_of = |address: IpAddr, other: IpAddr| address.is_ipv4() == other.is_ipv4();
    let has_source = |b: &&Backend| nat.source_addresses.iter().any(|s| is_of(*s, b.address));
    let without = backends.iter().find(|backend| !has_source(backend));
    let is_used = |source: IpAddr| backends.iter().any(|b| is_of(source, b.address));
    let listed = spec
        .field("nat")?
        .object(&["mode", "source_addresses", "on_exhaustion"])?
        .field("source_addresses")?;
    if let Some(backend) = without.filter(|_| nat.mode == NatMode::FullNat) {
        let (address, family) = (backend.address, family(backend.address));
        return listed.wrong(format!(
            "has no address of {family} for flows to the backend {address}: list one, or use `nat.mode: one-arm`"
        ));
    }
    listed.list(|cursor| {
        let address = cursor.address()?;
        if is_used(address) {
            return Some(());
        }
        let family = family(address);
        cursor.wrong(format!("is {address}, but no backend is of {family}: leave it out"))
    })?;
    Some(())
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Why flows of a VIP cannot reach a backend, if so: packets that keep their client's address keep its family, and others come
/// from an address of the backend's.
pub(super) fn unreachable(address: IpAddr, vip: IpAddr, nat: &Nat) -> Option<String> {
    let (own, other) = (family(vip), family(address));
    let is_across = own != other;
    match nat.mode {
        NatMode::Dnat if is_across => Some(format!(
            "is {address}, but the VIP's clients are of {own}, and `nat.mode: dnat` keeps their addresses: use `one-arm`, or \
             `full-nat` with `source_addresses` of {other}"
        )),
        NatMode::Dsr | NatMode::DsrIpip | NatMode::DsrGue if is_across => Some(format!(
            "is {address}, but with direct server return a backend gets packets as they came, of {own}: use `one-arm`, or \
             `full-nat` with `source_addresses` of {other}"
        )),
        // Where sources are listed, see `check_sources`.
        NatMode::FullNat if is_across && nat.source_addresses.is_empty() => Some(format!(
            "is {address}, but flows come from no address of {other}: list one in `nat.source_addresses`, or use \
             `nat.mode: one-arm`"
        )),
        NatMode::Dnat
        | NatMode::FullNat
        | NatMode::OneArm
        | NatMode::Dsr
        | NatMode::DsrIpip
        | NatMode::DsrGue => None,
    }
}
