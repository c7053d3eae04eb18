//! Policies as chains: the first statement that says accept or reject decides.
//!
//! A route meets the statements of the chain's policies in order. One whose conditions all hold changes the route and
//! then accepts it, rejects it, or lets it meet the next one, changed. A policy whose statements have not decided does
//! what its `otherwise` says; after the last one the route is rejected (RFC 8212: nothing crosses that is not listed).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::action::{Actions, NextHop};
use super::condition::{Condition, Source};
use crate::fib::Install;
use crate::wire::Attributes;

/// Policies that a route meets one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain(Arc<[Arc<Policy>]>);

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
    /// What becomes of a route that no statement decides on.
    pub otherwise: Verdict,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// A name for people; empty if none.
    pub name: String,
    /// All have to hold; without any, every route is meant.
    pub conditions: Vec<Condition>,
    /// What is done to the route.
    pub actions: Actions,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What a statement says of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It crosses.
    Accept,
    /// It does not.
    Reject,
    /// The next statement, or policy, says.
    Next,
}

/// What decided on a route; displayed for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A statement, by its place from 0.
    Statement {
        /// The policy.
        policy: String,
        /// Its place.
        place: usize,
        /// Its name; empty if none.
        name: String,
    },
    /// A policy's `otherwise`.
    Otherwise {
        /// The policy.
        policy: String,
    },
    /// The end of the chain.
    End,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement { policy, place, name } if name.is_empty() => {
                write!(f, "policy {policy}, statement {}", place + 1)
            }
            Self::Statement { policy, place, name } => {
                write!(f, "policy {policy}, statement {} ({name})", place + 1)
            }
            Self::Otherwise { policy } => write!(f, "policy {policy}, otherwise"),
            Self::End => f.write_str("no policy accepts it"),
        }
    }
}

/// What is known of a route beside its attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) prefix: &'a IpNetwork,
    /// Who told us.
    pub(crate) neighbor: Option<IpAddr>,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) source: Source,
    /// Our AS on the session.
    pub(crate) our_as: u32,
}

impl Facts<'_> {
    /// The facts of a route whose next hop an earlier statement set.
    fn after(self, change: Option<&Change>) -> Self {
        let same_family = |hop: &IpAddr| hop.is_ipv4() == self.prefix.is_ipv4();
        let next_hop = match change.and_then(|change| change.next_hop) {
            Some(NextHop::Address(address)) => Some(address).filter(same_family).or(self.next_hop),
            Some(NextHop::Peer) => self.neighbor.filter(same_family).or(self.next_hop),
            // As of a route of our own.
            Some(NextHop::Own) => None,
            Some(NextHop::Unchanged) | None => self.next_hop,
        };
        Self { next_hop, ..self }
    }
}

/// A route as a chain left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) attributes: Attributes,
    pub(crate) next_hop: Option<NextHop>,
    pub(crate) install: Option<Install>,
    /// MED was set, and not only learned.
    pub(crate) sets_med: bool,
}

impl Chain {
    /// A chain of these.
    #[must_use]
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        Self(policies.into())
    }

    /// Whether it may say so of a route.
    pub(crate) fn may_install(&self, install: Install) -> bool {
        let statements = self.0.iter().flat_map(|policy| &policy.statements);
        statements.into_iter().any(|statement| statement.actions.install == Some(install))
    }

    /// Whether its answer depends on the prefix; where it does not, one answer holds for all prefixes of a family that
    /// share attributes, next hop and neighbour. Where it does, every condition is asked anew for each prefix.
    pub(crate) fn is_per_prefix(&self) -> bool {
        let statements = self.0.iter().flat_map(|policy| &policy.statements);
        statements.flat_map(|statement| &statement.conditions).any(Condition::is_per_prefix)
    }

    /// The route as it crosses: `None` of the change where it does so as it is; an `Err` says what rejected it.
    pub(crate) fn evaluate(
        &self,
        facts: &Facts<'_>,
        attributes: &Attributes,
    ) -> Result<Option<Change>, Decider<'_>> {
        let mut change: Option<Change> = None;
        for policy in self.0.iter() {
            for (place, statement) in policy.statements.iter().enumerate() {
                let now = change.as_ref().map_or(attributes, |change| &change.attributes);
                let facts = &facts.after(change.as_ref());
                if !statement.conditions.iter().all(|condition| condition.holds(facts, now)) {
                    continue;
                }
                if statement.verdict == Verdict::Reject {
                    return Err(Decider::Statement(policy, place));
                }
                if !statement.actions.are_none() {
                    let change = change.get_or_insert_with(|| Change {
                        attributes: attributes.clone(),
                        next_hop: None,
                        install: None,
                        sets_med: false,
                    });
                    statement.actions.apply(facts, change);
                }
                if statement.verdict == Verdict::Accept {
                    return Ok(change);
                }
            }
            match policy.otherwise {
                Verdict::Accept => return Ok(change),
                Verdict::Reject => return Err(Decider::Otherwise(policy)),
                Verdict::Next => {}
            }
        }
        Err(Decider::End)
    }
}

/// What rejected a route, without a copy of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decider<'a> {
    Statement(&'a Policy, usize),
    Otherwise(&'a Policy),
    End,
}

impl Decider<'_> {
    pub(crate) fn rule(self) -> Rule {
        match self {
            Self::Statement(policy, place) => Rule::Statement {
                policy: policy.name.clone(),
                place,
                name: policy.statements.get(place).map_or_else(String::new, |s| s.name.clone()),
            },
            Self::Otherwise(policy) => Rule::Otherwise { policy: policy.name.clone() },
            Self::End => Rule::End,
        }
    }
}

#[cfg(test)]
mod tests;
