//! Graceful restart: what OPENs say of it, and what the end of a session leaves (RFC 4724, RFC 8538).

use std::time::Duration;

use super::link::{Link, Phase};
use super::lose::Loss;
use crate::config::PeerConfig;
use crate::wire::{Capability, Family, GracefulRestart, Notification, Open, error};

/// What our OPEN says of our own past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// The process has restarted and has not selected its routes yet (R).
    pub(crate) restarted: bool,
    /// What carries traffic was never gone (F).
    pub(crate) preserved: bool,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graceful {
    /// Families whose routes stay while the neighbour restarts, and whether it forwarded all the while.
    pub(crate) families: Vec<(Family, bool)>,
    /// It has restarted: it does not say End-of-RIB before we do.
    pub(crate) restarted: bool,
    /// Both keep routes also where a NOTIFICATION or the HoldTimer ends the session (RFC 8538).
    pub(crate) notifications: bool,
    /// How long it takes to come back.
    pub(crate) time: Duration,
}

/// What stays of a session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Routes of these families.
    pub(crate) families: Vec<Family>,
    /// For so long.
    pub(crate) time: Duration,
}

/// What we say. Only of families that are sure to be spoken: a neighbour that restarts waits for our End-of-RIB of each.
/// These are the ones that the configuration names, else those of the session before, else that of the transport.
pub(super) fn ours(peer: &PeerConfig, past: Past, before: Option<&[Family]>) -> Option<Capability> {
    let time = peer.restart_time?;
    let transport = [Family::of_address(peer.address)];
    let families = peer.families.as_deref().or(before).unwrap_or(&transport);
    Some(Capability::GracefulRestart(GracefulRestart {
        restarted: past.restarted,
        notifications: true,
        time_secs: u16::try_from(time.as_secs()).unwrap_or(u16::MAX),
        families: families.iter().map(|&family| (family, past.preserved)).collect(),
    }))
}

/// What their OPEN makes of it; `spoken`: families of the session.
pub(super) fn negotiate(peer: &PeerConfig, open: &Open, spoken: &[Family]) -> Option<Graceful> {
    peer.restart_time?;
    // RFC 5492 §4: of several the last one counts.
    let said = open.capabilities.iter().rev().find_map(|capability| match capability {
        Capability::GracefulRestart(said) => Some(said),
        Capability::Multiprotocol(_)
        | Capability::RouteRefresh
        | Capability::ExtendedNextHop(_)
        | Capability::ExtendedMessage
        | Capability::AddPath(_)
        | Capability::EnhancedRouteRefresh
        | Capability::FourOctetAs(_)
        | Capability::Unknown { .. } => None,
    })?;
    let families = said.families.iter().copied().filter(|(family, _)| spoken.contains(family));
    Some(Graceful {
        families: families.collect(),
        restarted: said.restarted,
        notifications: said.notifications,
        time: Duration::from_secs(said.time_secs.into()),
    })
}

/// What stays of an Established session that ends so.
pub(super) fn kept(link: &Link, loss: &Loss) -> Option<Kept> {
    let Phase::Established { negotiated } = &link.phase else { return None };
    let graceful = negotiated.graceful.as_ref()?;
    let keeps = match loss {
        Loss::Closed(_) | Loss::Superseded => true,
        // RFC 8538 §4.
        Loss::Sent(why) | Loss::Received(why) => graceful.notifications && !is_final(why, loss),
        Loss::Stopped(_) => false,
    };
    let families: Vec<_> = graceful.families.iter().map(|(family, _)| *family).collect();
    (keeps && !families.is_empty()).then_some(Kept { families, time: graceful.time })
}

/// How the neighbour is told that a session ends.
pub(super) fn told(link: &Link, why: &Notification) -> Notification {
    let notifications = link
        .negotiated()
        .and_then(|negotiated| negotiated.graceful.as_ref())
        .is_some_and(|graceful| graceful.notifications);
    if notifications && ends_for_good(why) { why.hardened() } else { why.clone() }
}

fn is_final(why: &Notification, loss: &Loss) -> bool {
    let hard = (why.code, why.subcode) == error::HARD_RESET;
    hard || matches!(loss, Loss::Sent(_)) && ends_for_good(why)
}

/// Somebody or some bound wants the routes gone; anything else is an accident.
fn ends_for_good(why: &Notification) -> bool {
    matches!(
        (why.code, why.subcode),
        error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED
            | error::ADMINISTRATIVE_SHUTDOWN
            | error::PEER_DE_CONFIGURED
            | error::ADMINISTRATIVE_RESET
            | error::OUT_OF_RESOURCES
            | error::HARD_RESET
            | error::BFD_DOWN
    )
}
