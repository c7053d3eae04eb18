//! From the file's policies to the speaker's: names become what they name.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;
use lb_api_types::config::Bgp;
use lb_api_types::policy::{
    Action, BgpPolicy, BgpSet, BgpStatement, CommunityMatch, Conditions, Family, Members, Origin,
    Policies, Range, RouteChanges, Source,
};
use lb_routing::policy::{
    self, Actions, AsPathSet, Chain, CommunitySet, Condition, Match, NextHop, Policy, PrefixSet,
    Statement, Verdict,
};
use lb_routing::{Export, Import, Install, Origin as PathOrigin};

/// Every policy by its name.
pub(super) struct Library(HashMap<String, Arc<Policy>>);

/// A set as the speaker has it.
enum Set {
    Prefixes(Arc<PrefixSet>),
    AsPaths(Arc<AsPathSet>),
    Communities(Arc<CommunitySet>),
    Neighbors(Arc<PrefixSet>),
}

type Sets<'a> = HashMap<&'a str, Set>;

impl Library {
    /// The policies of a configuration that was read: what it names is there.
    pub(super) fn of(bgp: &Bgp) -> Result<Self> {
        let sets = bgp.sets.iter().map(|told| Ok((told.name.as_str(), set(told)?)));
        let sets: Sets<'_> = sets.collect::<Result<_>>()?;
        let policies = bgp.policies.iter().map(|told| {
            let policy = policy(told, &sets).with_context(|| format!("policy {}", told.name))?;
            Ok((told.name.clone(), Arc::new(policy)))
        });
        Ok(Self(policies.collect::<Result<_>>()?))
    }

    pub(super) fn import(&self, names: &Policies) -> Result<Import> {
        Ok(match names.0.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] | ["none"] => Import::None,
            ["all"] => Import::All,
            names => Import::Policies(self.chain(names)?),
        })
    }

    pub(super) fn export(&self, names: &Policies) -> Result<Export> {
        Ok(match names.0.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] | ["none"] => Export::None,
            ["vips"] => Export::Vips,
            ["all"] => Export::All,
            names => Export::Policies(self.chain(names)?),
        })
    }

    fn chain(&self, names: &[&str]) -> Result<Chain> {
        let policies = names.iter().map(|&name| match name {
            "none" => Ok(Arc::new(ready_made(name, Vec::new(), Verdict::Reject))),
            "all" => Ok(Arc::new(ready_made(name, Vec::new(), Verdict::Accept))),
            "vips" => {
                let ours = Condition::Source(policy::Source::Local);
                Ok(Arc::new(ready_made(name, vec![ours], Verdict::Next)))
            }
            name => self.0.get(name).cloned().with_context(|| format!("there is no policy {name}")),
        });
        Ok(Chain::new(policies.collect::<Result<_>>()?))
    }
}

/// Accepts what meets the conditions, if there are any.
fn ready_made(name: &str, conditions: Vec<Condition>, otherwise: Verdict) -> Policy {
    let accept = || Statement {
        name: String::new(),
        conditions: conditions.clone(),
        actions: Actions::default(),
        verdict: Verdict::Accept,
    };
    let statements = if conditions.is_empty() { Vec::new() } else { vec![accept()] };
    Policy { name: name.to_owned(), statements, otherwise }
}

fn set(told: &BgpSet) -> Result<Set> {
    let read = || -> Result<Set> {
        Ok(match &told.members {
            Members::Prefixes(texts) => Set::Prefixes(Arc::new(PrefixSet::new(all(texts)?))),
            Members::AsPaths(texts) => Set::AsPaths(Arc::new(AsPathSet::new(texts.clone())?)),
            Members::Communities(texts) => {
                Set::Communities(Arc::new(CommunitySet::new(all(texts)?)))
            }
            Members::Neighbors(texts) => {
                // An address is a prefix of its own.
                let prefixes = all::<IpNetwork>(texts)?.into_iter();
                let ranges = prefixes.map(|prefix| prefix.to_string());
                Set::Neighbors(Arc::new(PrefixSet::new(all(&ranges.collect::<Vec<_>>())?)))
            }
        })
    };
    read().with_context(|| format!("set {}", told.name))
}

/// Every text as what it stands for.
fn all<T: FromStr<Err: std::fmt::Display>>(texts: &[String]) -> Result<Vec<T>> {
    texts.iter().map(|text| text.parse().map_err(|error| anyhow!("{text} {error}"))).collect()
}

fn policy(told: &BgpPolicy, sets: &Sets<'_>) -> Result<Policy> {
    let statements = told.spec.statements.iter().map(|told| statement(told, sets));
    Ok(Policy {
        name: told.name.clone(),
        statements: statements.collect::<Result<_>>()?,
        otherwise: verdict(told.spec.otherwise),
    })
}

fn verdict(action: Action) -> Verdict {
    match action {
        Action::Accept => Verdict::Accept,
        Action::Reject => Verdict::Reject,
        Action::Next => Verdict::Next,
    }
}

fn statement(told: &BgpStatement, sets: &Sets<'_>) -> Result<Statement> {
    Ok(Statement {
        name: told.name.clone().unwrap_or_default(),
        conditions: conditions(&told.conditions, sets)?,
        actions: actions(&told.set)?,
        verdict: verdict(told.action),
    })
}

/// The cheap ones first: the costly ones are then asked less often.
fn conditions(told: &Conditions, sets: &Sets<'_>) -> Result<Vec<Condition>> {
    let mut all = Vec::new();
    all.extend(told.source.map(|source| {
        Condition::Source(match source {
            Source::Vips => policy::Source::Local,
            Source::Internal => policy::Source::Internal,
            Source::External => policy::Source::External,
        })
    }));
    all.extend(told.family.map(|family| {
        Condition::Family(match family {
            Family::Ipv4 => lb_routing::Family::IPV4_UNICAST,
            Family::Ipv6 => lb_routing::Family::IPV6_UNICAST,
        })
    }));
    all.extend(told.origin.map(|told| Condition::Origin(origin(told))));
    all.extend(told.med.map(|told| Condition::Med(range(told))));
    all.extend(told.local_pref.map(|told| Condition::LocalPref(range(told))));
    all.extend(told.as_path_length.map(|told| Condition::AsPathLength(range(told))));
    let how = match told.community_match {
        Some(CommunityMatch::All) => Match::All,
        Some(CommunityMatch::Any) | None => Match::Any,
    };
    let named = [
        (&told.neighbor_set, Place::Neighbor),
        (&told.next_hop_set, Place::NextHop),
        (&told.prefix_set, Place::Prefix),
        (&told.community_set, Place::Community(how)),
        (&told.as_path_set, Place::AsPath),
    ];
    for (name, place) in named {
        let Some(name) = name else { continue };
        let set = sets.get(name.as_str()).with_context(|| format!("there is no set {name}"))?;
        all.push(place.of(set).with_context(|| format!("set {name} is of another kind"))?);
    }
    Ok(all)
}

/// What of a route has to be in a set.
#[derive(Clone, Copy)]
enum Place {
    Prefix,
    AsPath,
    Community(Match),
    Neighbor,
    NextHop,
}

impl Place {
    fn of(self, set: &Set) -> Option<Condition> {
        match (self, set) {
            (Self::Prefix, Set::Prefixes(set)) => Some(Condition::Prefix(Arc::clone(set))),
            (Self::NextHop, Set::Prefixes(set)) => Some(Condition::NextHop(Arc::clone(set))),
            (Self::AsPath, Set::AsPaths(set)) => Some(Condition::AsPath(Arc::clone(set))),
            (Self::Community(how), Set::Communities(set)) => {
                Some(Condition::Community(Arc::clone(set), how))
            }
            (Self::Neighbor, Set::Neighbors(set)) => Some(Condition::Neighbor(Arc::clone(set))),
            (
                Self::Prefix | Self::NextHop | Self::AsPath | Self::Community(_) | Self::Neighbor,
                Set::Prefixes(_) | Set::AsPaths(_) | Set::Communities(_) | Set::Neighbors(_),
            ) => None,
        }
    }
}

fn range(told: Range) -> std::ops::RangeInclusive<u32> {
    match told {
        Range::Exactly(number) => number..=number,
        Range::Between { min, max } => min.unwrap_or(0)..=max.unwrap_or(u32::MAX),
    }
}

fn origin(told: Origin) -> PathOrigin {
    match told {
        Origin::Igp => PathOrigin::Igp,
        Origin::Egp => PathOrigin::Egp,
        Origin::Incomplete => PathOrigin::Incomplete,
    }
}

fn actions(told: &RouteChanges) -> Result<Actions> {
    let next_hop = told.next_hop.as_deref().map(|text| {
        Ok::<_, anyhow::Error>(match text {
            "self" => NextHop::Own,
            "unchanged" => NextHop::Unchanged,
            "peer" => NextHop::Peer,
            address => NextHop::Address(address.parse()?),
        })
    });
    Ok(Actions {
        local_pref: told.local_pref,
        install: told.install.map(install),
        med: told.med,
        origin: told.origin.map(origin),
        next_hop: next_hop.transpose()?,
        prepend: told.prepend.map(|prepend| (prepend.asn, prepend.times)),
        communities: told.communities.as_deref().map(all).transpose()?,
        remove_communities: all(&told.remove_communities)?,
        add_communities: all(&told.add_communities)?,
    })
}

/// Which tables have a route.
pub(super) fn install(told: lb_api_types::policy::Install) -> Install {
    match told {
        lb_api_types::policy::Install::Both => Install::Both,
        lb_api_types::policy::Install::Dataplane => Install::Dataplane,
        lb_api_types::policy::Install::Kernel => Install::Kernel,
    }
}
