//! What a VIP may say of the segment sizes that SYNs announce.

use lb_api_types::vip::{MssAuto, MssClamp, NatMode, Protocol};

use crate::read::Object;

/// The least that every host takes (RFC 9293 §3.7.1), and more than any link of Ethernet does.
const LEAST: u16 = 536;
const MOST: u16 = 65_000;

/// Reads the bound, if there is one.
pub(super) fn read(
    spec: &Object<'_>,
    protocol: Option<Protocol>,
    mode: Option<NatMode>,
) -> Option<Option<MssClamp>> {
    let Some(cursor) = spec.field("mss_clamp") else { return Some(None) };
    let said = if cursor.is_text() {
        MssClamp::Auto(cursor.one_of(&[("auto", MssAuto::Auto)])?)
    } else {
        MssClamp::Bytes(cursor.number(LEAST..=MOST)?)
    };
    if let Some(other @ (Protocol::Udp | Protocol::Sctp | Protocol::Icmp)) = protocol {
        let name = other.name().to_uppercase();
        return cursor.wrong(format!("is for TCP's segments, and {name} has none: leave it out"));
    }
    if mode.is_some_and(NatMode::is_dsr) {
        return cursor.wrong(
            "is said, but with direct server return lbd does not see what backends announce: set the MSS of their routes, or \
             use another `nat.mode`",
        );
    }
    Some(Some(said))
}
