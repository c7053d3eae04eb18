//! What somebody should look at while the daemon runs: each part of it says what of its own is not well, and says so again when
//! it is.

use std::collections::BTreeMap;

use lb_api_types::event::EventKind;
use tokio::sync::watch;

use crate::events::Events;

/// Sentences of one part that are shown at most, with how many more there are. Each is told as an event.
const MAX_OF_A_PART: usize = 20;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// BGP's neighbours, and what they name.
    Neighbours,
    /// The API's certificates.
    Certificates,
    /// What is kept, and the disk that it is on.
    State,
    /// Tokens and the audit log.
    Access,
}

/// Where alarms are raised and read.
#[derive(Clone, Debug)]
pub struct Alarms {
    said: watch::Sender<BTreeMap<Part, Vec<String>>>,
    events: Events,
}

impl Alarms {
    /// None, told to whoever watches these events from now on.
    pub fn new(events: Events) -> Self {
        Self { said: watch::channel(BTreeMap::new()).0, events }
    }

    /// All that a part has to say now; nothing where it is well.
    pub fn set(&self, part: Part, sentences: Vec<String>) {
        self.said.send_if_modified(|said| {
            let before = match sentences.is_empty() {
                true => said.remove(&part),
                false => said.insert(part, sentences.clone()),
            };
            let before = before.unwrap_or_default();
            for new in sentences.iter().filter(|sentence| !before.contains(sentence)) {
                tracing::warn!("{new}");
                self.events.tell(EventKind::AlarmRaised, "", new.as_str());
            }
            for over in before.iter().filter(|sentence| !sentences.contains(sentence)) {
                tracing::info!("no longer: {over}");
                self.events.tell(EventKind::AlarmCleared, "", over.as_str());
            }
            before != sentences
        });
    }

    /// What is said, of each part as much as is read.
    pub fn all(&self) -> Vec<String> {
        let said = self.said.borrow();
        let parts = said.values().map(|all| {
            let more = all.len().saturating_sub(MAX_OF_A_PART);
            let more = (more > 0).then(|| format!("{more} more of this kind"));
            all.iter().take(MAX_OF_A_PART).cloned().chain(more)
        });
        parts.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{From, Heard};

    #[test]
    fn an_alarm_is_told_when_it_is_raised_and_when_it_is_over() {
        let events = Events::default();
        let alarms = Alarms::new(events.clone());
        let say = |part, all: &[&str]| alarms.set(part, all.iter().map(|s| (*s).into()).collect());
        say(Part::Neighbours, &["a"]);
        say(Part::Neighbours, &["a", "b"]);
        say(Part::Certificates, &["c"]);
        assert_eq!(alarms.all(), ["a", "b", "c"]);
        say(Part::Neighbours, &["b"]);
        say(Part::Certificates, &[]);
        assert_eq!(alarms.all(), ["b"]);
        let mut watcher = events.watch(&From::Start).unwrap();
        let Heard::Events(told) = watcher.hear_kept() else { panic!("there were some") };
        let told: Vec<_> = told.iter().map(|event| (event.kind, event.message.as_str())).collect();
        let (raised, over) = (EventKind::AlarmRaised, EventKind::AlarmCleared);
        let expected = [(raised, "a"), (raised, "b"), (raised, "c"), (over, "a"), (over, "c")];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_part_does_not_flood_the_others() {
        let events = Events::default();
        let alarms = Alarms::new(events.clone());
        let say = |all: std::ops::Range<u32>| {
            alarms.set(Part::Neighbours, all.map(|n| n.to_string()).collect());
        };
        say(1..100);
        assert_eq!(alarms.all().len(), 21);
        assert_eq!(alarms.all()[20], "79 more of this kind");
        // One that comes before them ends none of them.
        let mut watcher = events.watch(&From::Now).unwrap();
        say(0..100);
        let Heard::Events(told) = watcher.hear_kept() else { panic!("there were some") };
        let told: Vec<_> = told.iter().map(|event| (event.kind, event.message.as_str())).collect();
        assert_eq!(told, [(EventKind::AlarmRaised, "0")]);
    }
}
