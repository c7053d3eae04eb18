//! Tells who watches events what becomes of BGP sessions, and whom nobody named and is refused one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_api_types::event::EventKind;
use lb_routing::{ListenStatus, PeerStatus, RouterHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::router;
use crate::events::Events;

/// How often sessions are looked at. A state that is entered and left between two looks is not told; that a session ended
/// and came back is, by the moment that its state was entered.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Of one group it is told no more often that somebody is refused.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Follows the sessions until the daemon ends.
pub(super) fn spawn(router: RouterHandle, events: Events) {
    tokio::spawn(async move {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Known::default();
        let mut refusals = Refusals::default();
        loop {
            tick.tick().await;
            for (name, message) in refusals.news(&router.listening().await, Instant::now()) {
                events.tell(EventKind::PeerRefused, name, message);
            }
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

/// By group: connections and AS numbers that were refused as told last, and when.
#[derive(Debug, Default)]
struct Refusals(BTreeMap<String, (u64, u64, Option<Instant>)>);

impl Refusals {
    /// Groups and sentences of those that refused somebody since.
    fn news(&mut self, listening: &[ListenStatus], now: Instant) -> Vec<(String, String)> {
        self.0.retain(|name, _| listening.iter().any(|listen| listen.name == *name));
        let mut news = Vec::new();
        for listen in listening {
            let known = self.0.entry(listen.name.clone()).or_default();
            let (refused, wrong_as, told) = *known;
            // One that comes back under the same name counts from the start.
            let refused = listen.refused.checked_sub(refused).unwrap_or(listen.refused);
            let wrong_as = listen.wrong_as.checked_sub(wrong_as).unwrap_or(listen.wrong_as);
            let rests = told.is_some_and(|told| now.duration_since(told) < REFUSALS_EVERY);
            if rests || (refused, wrong_as) == (0, 0) {
                continue;
            }
            *known = (listen.refused, listen.wrong_as, Some(now));
            let many = (refused > 0).then(|| {
                let limit = listen.limit;
                format!("{refused} connections, as there are as many neighbours as may be (listen_limit {limit})")
            });
            let wrong = (wrong_as > 0)
                .then(|| format!("{wrong_as} for an AS number that is none of the group's"));
            let what: Vec<_> = many.into_iter().chain(wrong).collect();
            news.push((listen.name.clone(), format!("refused: {}", what.join("; "))));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use lb_routing::{Messages, State};

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
            messages_received: Messages::default(),
            messages_sent: Messages::default(),
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

    #[test]
    fn refusals_of_a_group_are_told_at_once_and_then_once_a_minute_with_all_that_were_meanwhile() {
        let start = Instant::now();
        let listen = |refused, wrong_as| ListenStatus {
            name: "nodes".into(),
            ranges: Vec::new(),
            limit: 9,
            neighbours: 9,
            refused,
            asns: Vec::new(),
            wrong_as,
        };
        let mut refusals = Refusals::default();
        let mut told = |secs, refused, wrong_as| {
            let now = start + Duration::from_secs(secs);
            let news = refusals.news(&[listen(refused, wrong_as)], now).into_iter();
            news.map(|(_, message)| message).collect::<Vec<_>>()
        };
        assert_eq!(told(0, 0, 0), [""; 0]);
        let many = |count| {
            format!(
                "refused: {count} connections, as there are as many neighbours as may be (listen_limit 9)"
            )
        };
        assert_eq!(told(1, 2, 0), [many(2)]);
        assert_eq!(told(60, 5, 0), [""; 0]);
        let wrong = "; 1 for an AS number that is none of the group's";
        assert_eq!(told(61, 6, 1), [format!("{}{wrong}", many(4))]);
        assert_eq!(told(200, 6, 1), [""; 0]);
    }
}
