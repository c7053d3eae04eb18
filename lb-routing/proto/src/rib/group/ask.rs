//! What policy makes of the best paths, for all members of a group at once.

use super::Group;
use super::out::{Out, OutId, Question};
use crate::policy::{self, Target};
use crate::rib::prefixes::PrefixId;
use crate::rib::{PathEntry, PeerIndex, Rib};
use crate::wire;

impl Group {
    /// What the members should know of a prefix, with a reference.
    pub(super) fn export(&mut self, id: PrefixId, rib: &Rib) -> OutId {
        let Some(&best) = rib.best(id) else { return OutId::NONE };
        let generation = rib.attributes.generation(best.attributes);
        if self.per_prefix {
            let out = self.ask(id, &best, generation, rib);
            return self.outs.add(out);
        }
        let question = Question {
            attributes: best.attributes,
            generation,
            source: best.source,
            ipv6: rib.prefixes.is_ipv6(id),
        };
        if let Some(known) = self.outs.recall(&question) {
            return known;
        }
        let out = self.ask(id, &best, generation, rib);
        self.outs.remember(&question, out)
    }

    /// Asks policy.
    fn ask(&mut self, id: PrefixId, best: &PathEntry, generation: u32, rib: &Rib) -> Option<Out> {
        let asked = self.asked.take().filter(|asked| (asked.0, asked.1) == (*best, generation));
        let (.., path) =
            self.asked.insert(asked.unwrap_or_else(|| (*best, generation, rib.path(best))));
        let target = Target {
            // The source is left out member by member.
            index: PeerIndex::MAX,
            config: &self.config,
            our_as: self.key.our_as,
            cluster_id: self.key.cluster_id,
            local: self.key.local,
            families: &self.key.families,
        };
        let prefix = rib.prefixes.prefix(id);
        let teller = rib.teller(path);
        policy::check_export(&prefix, path, teller, &target).ok()?;
        let change = policy::export(&prefix, path, teller, &target).ok()?;
        let (said, sets_med) =
            change.as_ref().map_or((None, false), |change| (change.next_hop, change.sets_med));
        let next_hop = policy::next_hop(&prefix, path, said, &target)?;
        let left = change.as_ref().map_or(&*path.attributes, |change| &change.attributes);
        let told = policy::advertised_attributes(left, sets_med, teller, &target);
        // Attributes too large for a message: the members must not keep what they had.
        let encoded = wire::encode_attributes(&told, next_hop, self.key.context).ok()?;
        Some(Out::new(encoded, next_hop, best.source))
    }
}
