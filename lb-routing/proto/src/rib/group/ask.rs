//! What policy makes of paths, for all members of a group at once.

use smallvec::SmallVec;

use super::out::{Out, OutId, Question};
use super::several::Known;
use super::{Group, MAX_OVERSIZE};
use crate::policy::{self, Target};
use crate::rib::prefixes::PrefixId;
use crate::rib::{PathEntry, PeerIndex, Rib};
use crate::wire;

impl Group {
    /// What the members should know of a prefix, with a reference.
    pub(super) fn export(&mut self, id: PrefixId, rib: &Rib) -> OutId {
        rib.best(id).map_or(OutId::NONE, |&best| self.export_path(id, &best, rib))
    }

    /// What they should know of a prefix's paths where they hear of several, with references: the best ones that policy
    /// lets them hear of.
    /// Says, too, how many paths were looked at.
    pub(super) fn export_several(
        &mut self,
        id: PrefixId,
        rib: &Rib,
    ) -> (SmallVec<[Known; 4]>, usize) {
        let several = self.key.ids.has(rib.prefixes.is_ipv6(id));
        let (mut known, mut looks) = (SmallVec::new(), 0);
        rib.ranked(id, |path| {
            looks += 1;
            let out = self.export_path(id, path, rib);
            if !out.is_none() {
                known.push((path.origin(), out));
            }
            !several || known.len() == usize::from(self.key.paths)
        });
        (known, looks)
    }

    fn export_path(&mut self, id: PrefixId, path: &PathEntry, rib: &Rib) -> OutId {
        let generation = rib.attributes.generation(path.attributes);
        if self.per_prefix {
            let out = self.ask(id, path, generation, rib);
            return self.outs.add(out);
        }
        let question = Question {
            attributes: path.attributes,
            generation,
            source: path.source,
            ipv6: rib.prefixes.is_ipv6(id),
        };
        if let Some(known) = self.outs.recall(&question) {
            return known;
        }
        let out = self.ask(id, path, generation, rib);
        self.outs.remember(&question, out)
    }

    /// Asks policy.
    fn ask(&mut self, id: PrefixId, entry: &PathEntry, generation: u32, rib: &Rib) -> Option<Out> {
        let asked = self.asked.take().filter(|asked| (asked.0, asked.1) == (*entry, generation));
        let (.., path) =
            self.asked.insert(asked.unwrap_or_else(|| (*entry, generation, rib.path(entry))));
        let target = Target {
            // The source is left out member by member.
            index: PeerIndex::MAX,
            config: &self.config,
            our_as: self.key.our_as,
            cluster_id: self.key.cluster_id,
            local: self.key.local,
            families: &self.key.families,
            ipv4_by_ipv6: self.key.ipv4_by_ipv6,
        };
        let prefix = rib.prefixes.prefix(id);
        let teller = rib.teller(path);
        let (told, next_hop) = policy::told(&prefix, path, teller, &target).ok()?;
        let room = (self.key.ids, self.key.limit);
        let encoded = wire::encode_attributes(&told, next_hop, self.key.context, room);
        // Attributes too large for a message: the members must not keep what they had.
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                if self.oversize.len() < MAX_OVERSIZE {
                    self.oversize.push((prefix, error));
                }
                return None;
            }
        };
        let local = self.key.local;
        let near = |hop| hop == local || teller.is_some_and(|teller| teller.address == hop);
        Some(Out::new(encoded, next_hop, entry.source, near))
    }
}
