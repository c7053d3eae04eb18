//! Tells who watches events what becomes of BGP sessions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_api_types::event::EventKind;
use lb_routing::{PeerStatus, RouterHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::router;
use crate::events::Events;

/// How often sessions are looked at. A state that is entered and left between two looks is not told; that a session ended
/// and came back is, by the moment that its state was entered.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Follows the sessions until the daemon ends.
pub(super) fn spawn(router: RouterHandle, events: Events) {
    tokio::spawn(async move {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Known::default();
        loop {
            tick.tick().await;
            for (name, message) in known.changes(&router.peers().await) {
                events.tell(EventKind::PeerState, name, message);
            }
        }
    });
}

/// The state of each session and since when, as told last.
#[derive(Debug, Default)]
struct Known(BTreeMap<IpAddr, (&'static str, Instant)>);

impl Known {
    /// Names and sentences of those that have changed. Nothing is told of a session's very first state.
    fn changes(&mut self, peers: &[PeerStatus]) -> Vec<(String, String)> {
        let mut changes = Vec::new();
        for peer in peers {
            let now = (router::state(peer.state), peer.since);
            let before = self.0.insert(peer.address, now);
            if before.is_none_or(|before| before == now) {
                continue;
            }
            let why = match (now.0, peer.last_error.as_str()) {
                ("Established", _) | (_, "") => String::new(),
                (_, error) => format!(" ({error})"),
            };
            changes.push((peer.name.clone(), format!("the session is {}{why}", now.0)));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use lb_routing::State;

    use super::*;

    #[test]
    fn a_session_that_changed_or_came_back_is_told_once() {
        let start = Instant::now();
        let peer = |state, secs, error: &str| PeerStatus {
            name: "upstream".into(),
            address: [192, 0, 2, 1].into(),
            asn: 65001,
            state,
            since: start + Duration::from_secs(secs),
            router_id: None,
            hold_time_secs: 90,
            prefixes_received: 0,
            prefixes_rejected: 0,
            dynamic: None,
            routes_refused: 0,
            refused_not_kept: 0,
            malformed: 0,
            last_malformed: String::new(),
            capabilities: Vec::new(),
            prefixes_advertised: 0,
            messages_received: 0,
            messages_sent: 0,
            last_error: error.to_owned(),
            stale_until: None,
        };
        let mut known = Known::default();
        let mut told = |peer| {
            let changes = known.changes(&[peer]).into_iter();
            changes.map(|(_, message)| message).collect::<Vec<_>>()
        };
        assert_eq!(told(peer(State::Idle, 0, "")), [""; 0]);
        assert_eq!(told(peer(State::Established, 1, "old")), ["the session is Established"]);
        assert_eq!(told(peer(State::Established, 1, "")), [""; 0]);
        assert_eq!(told(peer(State::Established, 2, "")), ["the session is Established"]);
        let ended = told(peer(State::Idle, 3, "hold timer expired"));
        assert_eq!(ended, ["the session is Idle (hold timer expired)"]);
    }
}
