//! A dataplane that takes the resolver's outputs and insists on their order and need.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::*;

#[derive(Debug, Default)]
pub(super) struct Model {
    groups: BTreeMap<u32, Action>,
    routes: BTreeMap<IpNetwork, (u32, Source)>,
    pub(super) installed: BTreeMap<(IpNetwork, u32), OwnRoute>,
    /// Of next hops that are watched.
    pub(super) reached: BTreeMap<IpAddr, Reach>,
}

impl Model {
    pub(super) fn take_all(&mut self, fib: &mut Fib) -> Result<(), TestCaseError> {
        while let Some(output) = fib.poll_output() {
            match output {
                Output::Update(update) => self.take(update)?,
                Output::Install { prefix, metric, route } => {
                    let before = match &route {
                        None => self.installed.remove(&(prefix, metric)),
                        Some(route) => self.installed.insert((prefix, metric), route.clone()),
                    };
                    prop_assert_ne!(before, route, "needless");
                }
                Output::NextHop { next_hop, reach } => {
                    let before = self.reached.insert(next_hop, reach.clone());
                    prop_assert!(before.is_some_and(|before| before != reach), "needless");
                }
                Output::Resolve { .. } | Output::Busy => {}
            }
        }
        let named: BTreeSet<_> = self.routes.values().map(|(group, _)| *group).collect();
        prop_assert_eq!(named, self.groups.keys().copied().collect::<BTreeSet<_>>());
        Ok(())
    }

    fn take(&mut self, update: Update) -> Result<(), TestCaseError> {
        match update {
            Update::Group { id, action, like, .. } => {
                prop_assert!(
                    like.is_none_or(|like| self.groups.contains_key(&like)),
                    "like nothing"
                );
                if let Action::Forward(members) = &action {
                    prop_assert!(!members.is_empty());
                }
                prop_assert_ne!(self.groups.insert(id, action.clone()), Some(action), "needless");
            }
            Update::GroupRemoved { id } => {
                prop_assert!(self.groups.remove(&id).is_some(), "removed what is not there");
                prop_assert!(self.routes.values().all(|(group, _)| *group != id), "still named");
            }
            Update::Route { prefix, group, source } => {
                prop_assert!(self.groups.contains_key(&group), "names a group that is not there");
                let route = (group, source);
                prop_assert_ne!(self.routes.insert(prefix, route), Some(route), "needless");
            }
            Update::RouteRemoved { prefix } => {
                prop_assert!(self.routes.remove(&prefix).is_some(), "removed what is not there");
            }
        }
        Ok(())
    }

    pub(super) fn routes(&self) -> BTreeMap<IpNetwork, (Source, Action)> {
        let routes = self.routes.iter();
        routes
            .map(|(prefix, (group, source))| (*prefix, (*source, self.groups[group].clone())))
            .collect()
    }
}
