//! What a member that is behind is told: what it has missed, and whole families again where it asked for them.

use super::piece::Room;
use super::script::{self, Line};
use super::{CATCH_UP, Group, Sending};
use crate::rib::Rib;
use crate::rib::prefixes::PrefixId;
use crate::wire::{Family, Packer};

impl Group {
    /// Tells one that is behind some of what it has missed.
    pub(super) fn catch_up(&mut self, place: usize, rib: &mut Rib) -> Vec<Sending> {
        let begun = self.begin_again(place, rib);
        let member = &mut self.members[place];
        let hearer = member.hearer;
        let mut lines: Vec<Line> = Vec::new();
        let mut room = Room::new(self.key.limit);
        while lines.len() < CATCH_UP
            && !room.is_used_up()
            && let Some(id) = member.behind.pop()
        {
            if let Some(several) = &self.several {
                lines.extend(several.lines(id, hearer, &self.outs));
            } else {
                let out = self.sent.get(id as usize).copied().unwrap_or_default();
                lines.push((script::view(hearer, out, &self.outs), id, 0));
            }
            for &(seen, ..) in lines.iter().rev().take_while(|line| line.1 == id) {
                room.take(seen, self.outs.get(seen), rib.prefixes.is_ipv6(id));
            }
        }
        let mut packer = Packer::new(self.key.ids, self.key.limit);
        let mut marks = begun.len() as u64;
        for family in begun {
            packer.refresh_begins(family);
        }
        script::pack(&mut lines, &self.outs, &rib.prefixes, &mut packer);
        if member.behind.is_empty() {
            for family in std::mem::take(&mut member.ending) {
                packer.refresh_ends(family);
                marks += 1;
            }
        }
        if member.behind.is_empty() && self.pending.is_empty() && !self.holds_end {
            for family in std::mem::take(&mut member.initial) {
                packer.end_of_rib(family);
            }
        }
        self.lay_ghosts(rib);
        let (bytes, messages) = packer.finish();
        vec![Sending { peer: hearer.peer, bytes: bytes.into(), messages, marks }]
    }

    /// A member in step is behind by the families that it wants again: one walk over what was sent,
    /// however often it asked. Says what is to be marked by a beginning; its end follows (RFC 7313 §4, not before
    /// End-of-RIB).
    fn begin_again(&mut self, place: usize, rib: &Rib) -> Vec<Family> {
        let member = &mut self.members[place];
        if !member.behind.is_empty() || !member.initial.is_empty() || member.again.is_empty() {
            return Vec::new();
        }
        let again = std::mem::take(&mut member.again);
        let hearer = member.hearer;
        let wanted = |&id: &PrefixId| {
            let ipv6 = rib.prefixes.is_ipv6(id);
            again.contains(&if ipv6 { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST })
        };
        let known: Vec<_> = self.known_to(hearer).filter(wanted).collect();
        let member = &mut self.members[place];
        member.behind.extend(known.into_iter());
        if !self.key.enhanced_refresh {
            return Vec::new();
        }
        member.ending.clone_from(&again);
        again
    }
}
