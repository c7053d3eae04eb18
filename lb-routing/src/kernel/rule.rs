//! Rules of the kernel's policy routing, as far as they matter to the fast path, which knows destinations only.

use std::fmt::Write as _;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

/// The rule that leads to the main table: what comes after it is for packets that the main table has no route for, and
/// those are the kernel's business anyway.
const MAIN: u32 = 32_766;
/// The table that the kernel asks first.
const RT_TABLE_LOCAL: u32 = 255;

/// A rule by which a forwarded packet may take another way than the local and the main table's, as `ip rule` shows it.
///
/// A mark is set by nothing before the fast path, so rules that ask for one do not count, unless they ask for none.
#[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
pub(super) fn foreign(message: &RuleMessage) -> Option<String> {
    let header = &message.header;
    let inverted = header.flags.contains(RuleFlags::Invert);
    let (mut priority, mut table) = (0, u32::from(header.table));
    let (mut selectors, mut never) = (String::new(), false);
    let mut say = |word: &str, value: &dyn std::fmt::Display| {
        let _infallible = write!(selectors, " {word} {value}");
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(address) => say("from", &format!("{address}/{}", header.src_len)),
            RuleAttribute::Destination(address) => {
                say("to", &format!("{address}/{}", header.dst_len));
            }
            RuleAttribute::Iifname(name) => {
                say("iif", name);
                // Packets of this host itself.
                never |= name == "lo";
            }
            RuleAttribute::Oifname(name) => {
                say("oif", name);
                // Sockets that are bound to it.
                never = true;
            }
            RuleAttribute::UidRange(_) => never = true,
            RuleAttribute::FwMark(mark) => {
                say("fwmark", &format!("{mark:#x}"));
                never |= *mark != 0;
            }
            // Packets of VRFs: the fast path is not attached to their ports.
            RuleAttribute::L3MDev(true) => never = true,
            _ => {}
        }
    }
    let is_plain = selectors.is_empty() && header.tos == 0 && !inverted;
    let is_local = is_plain && table == RT_TABLE_LOCAL && header.action == RuleAction::ToTable;
    if priority >= MAIN || is_local || (never && !inverted) {
        return None;
    }
    let family = if header.family == AddressFamily::Inet6 { "-6 " } else { "" };
    let not = if inverted { " not" } else { "" };
    let from = if selectors.is_empty() { " from all" } else { "" };
    Some(format!("{family}{priority}:{not}{from}{selectors} lookup {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u32, table: u32, attributes: &[RuleAttribute]) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.attributes = attributes.to_vec();
        message.attributes.push(RuleAttribute::Priority(priority));
        message.attributes.push(RuleAttribute::Table(table));
        message
    }

    #[test]
    fn the_kernels_own_rules_and_those_for_this_hosts_packets_do_not_count() {
        assert_eq!(foreign(&rule(0, 255, &[])), None);
        assert_eq!(foreign(&rule(32_766, 254, &[])), None);
        assert_eq!(foreign(&rule(32_767, 253, &[])), None);
        for attribute in [
            RuleAttribute::Iifname("lo".into()),
            RuleAttribute::Oifname("eth0".into()),
            RuleAttribute::FwMark(1),
            RuleAttribute::L3MDev(true),
        ] {
            assert_eq!(
                foreign(&rule(100, 7, std::slice::from_ref(&attribute))),
                None,
                "{attribute:?}"
            );
        }
    }

    #[test]
    fn rules_by_source_interface_or_for_all_count() {
        assert_eq!(foreign(&rule(100, 7, &[])).unwrap(), "100: from all lookup 7");
        let mut by_source = rule(100, 7, &[RuleAttribute::Source([10, 0, 0, 0].into())]);
        by_source.header.src_len = 8;
        assert_eq!(foreign(&by_source).unwrap(), "100: from 10.0.0.0/8 lookup 7");
        let by_interface = rule(100, 7, &[RuleAttribute::Iifname("eth1".into())]);
        assert_eq!(foreign(&by_interface).unwrap(), "100: iif eth1 lookup 7");
        // WireGuard's: all but its own packets.
        let mut unmarked = rule(100, 7, &[RuleAttribute::FwMark(7)]);
        unmarked.header.flags = RuleFlags::Invert;
        assert_eq!(foreign(&unmarked).unwrap(), "100: not fwmark 0x7 lookup 7");
    }
}
