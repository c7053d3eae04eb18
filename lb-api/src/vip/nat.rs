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

/// Flows come from addresses of their backend's family: others would never be used.
pub(super) fn check_sources(
    spec: &Object<'_>,
    nat: Option<&Nat>,
    backends: &[Backend],
) -> Option<()> {
    let families = [true, false].map(|v4| backends.iter().any(|b| b.address.is_ipv4() == v4));
    let is_used = |address: &IpAddr| families[usize::from(address.is_ipv6())];
    if nat.is_none_or(|nat| nat.source_addresses.iter().all(is_used)) {
        return Some(());
    }
    let listed = spec
        .field("nat")?
        .object(&["mode", "source_addresses", "on_exhaustion"])?
        .field("source_addresses")?;
    listed.list(|cursor| {
        let address = cursor.address()?;
        if is_used(&address) {
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
        NatMode::FullNat => {
            let own = [vip];
            let sources =
                if nat.source_addresses.is_empty() { &own } else { &nat.source_addresses[..] };
            let has_source = sources.iter().any(|source| source.is_ipv4() == address.is_ipv4());
            (!has_source).then(|| {
                format!(
                    "is {address}, but flows come from no address of {other}: list one in `nat.source_addresses`, or use \
                     `nat.mode: one-arm`"
                )
            })
        }
        NatMode::Dnat | NatMode::OneArm | NatMode::Dsr | NatMode::DsrIpip | NatMode::DsrGue => None,
    }
}
