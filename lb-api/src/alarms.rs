//! What somebody should look at while the daemon runs: each part of it says what of its own is not well, and says so again when
//! it is.

use std::collections::BTreeMap;

use lb_api_types::event::EventKind;
use tokio::sync::watch;

use crate::events::Events;

/// Sentences that one part has at most; it says how many more there are.
const MAX_OF_A_PART: usize = 20;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// BGP's neighbours, and what they name.
    Neighbours,
    /// The API's certificates.
    Certificates,
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
    pub fn set(&self, part: Part, mut sentences: Vec<String>) {
        if let Some(more) = sentences.len().checked_sub(MAX_OF_A_PART).filter(|more| *more > 0) {
            sentences.truncate(MAX_OF_A_PART);
            sentences.push(format!("{more} more of this kind"));
        }
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

    /// Whether a part has something to say.
    pub fn has(&self, part: Part) -> bool {
        self.said.borrow().contains_key(&part)
    }

    /// Everything that is said.
    pub fn all(&self) -> Vec<String> {
        self.said.borrow().values().flatten().cloned().collect()
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
        assert!(alarms.has(Part::Neighbours) && !alarms.has(Part::Certificates));
        let mut watcher = events.watch(&From::Start).unwrap();
        let Heard::Events(told) = watcher.hear_kept() else { panic!("there were some") };
        let told: Vec<_> = told.iter().map(|event| (event.kind, event.message.as_str())).collect();
        let (raised, over) = (EventKind::AlarmRaised, EventKind::AlarmCleared);
        let expected = [(raised, "a"), (raised, "b"), (raised, "c"), (over, "a"), (over, "c")];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_part_does_not_flood_the_others() {
        let alarms = Alarms::new(Events::default());
        alarms.set(Part::Neighbours, (0..100).map(|n| n.to_string()).collect());
        assert_eq!(alarms.all().len(), 21);
        assert_eq!(alarms.all()[20], "80 more of this kind");
    }
}
