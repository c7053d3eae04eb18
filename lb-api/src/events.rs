//! What happens, for everybody who watches.
//!
//! A bounded ring keeps the last events; each watcher reads it at its own pace and holds only its place, so that a slow one
//! costs nothing. One that has fallen behind the ring is cut, counted, and told so when it comes back.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use lb_api_types::event::{Event, EventKind, FlowEventView};
use lb_api_types::resource::Condition;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::clock;

/// Events that are kept; the oldest gives way.
pub const MAX_EVENTS: usize = 32_768;
/// Watchers at most; more are refused.
pub const MAX_WATCHERS: usize = 64;
/// Events that a watcher takes at once.
const MAX_BATCH: usize = 256;

/// Where events are told and watched.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: watch::Sender<Ring>,
    room: Arc<Semaphore>,
    overruns: AtomicU64,
}

/// The last events, each with a number that is never used again.
#[derive(Debug)]
struct Ring {
    /// Tells this daemon's numbers from those of one before.
    epoch: u64,
    /// The number of the next event.
    next: u64,
    kept: VecDeque<Arc<Event>>,
    most: usize,
    ended: bool,
}

/// Where a watcher begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next event.
    Now,
    /// With the oldest that is kept.
    Start,
    /// After the event of this id.
    After(String),
}

/// What a watcher hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Events in order, at least one.
    Events(Vec<Arc<Event>>),
    /// Everything that is kept was told; only for a watcher that does not wait.
    Nothing,
    /// The daemon ends.
    Ended,
    /// The watcher was too slow: events that it has not seen are no longer kept.
    Overrun,
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    ring: watch::Receiver<Ring>,
    shared: Arc<Shared>,
    /// The number of the event that it hears next.
    next: u64,
    /// Whether events before that are to be called missed first.
    missed: bool,
    _place: OwnedSemaphorePermit,
}

impl Default for Events {
    fn default() -> Self {
        Self::with_room(MAX_EVENTS)
    }
}

impl Events {
    /// A ring that keeps so many.
    pub fn with_room(most: usize) -> Self {
        // A number that differs from one start to the next; nothing rests on its being hard to guess.
        let epoch = RandomState::new().hash_one(SystemTime::now());
        let ring = Ring { epoch, next: 0, kept: VecDeque::new(), most, ended: false };
        Self(Arc::new(Shared {
            ring: watch::channel(ring).0,
            room: Arc::new(Semaphore::new(MAX_WATCHERS)),
            overruns: AtomicU64::new(0),
        }))
    }

    /// Tells everybody.
    pub fn tell(&self, kind: EventKind, name: impl Into<String>, message: impl Into<String>) {
        self.push(kind, name.into(), message.into(), Vec::new(), None);
    }

    /// Tells everybody of conditions of a resource that are other than before.
    pub fn tell_conditions(&self, path: String, conditions: Vec<Condition>) {
        let words = conditions.iter().map(|it| {
            let Condition { kind, status, reason, message } = it;
            format!("{kind} is {status:?} ({reason}): {message}")
        });
        let message = words.collect::<Vec<_>>().join("; ");
        self.push(EventKind::ConditionChanged, path, message, conditions, None);
    }

    /// Tells everybody of a flow.
    pub fn tell_flow(&self, kind: EventKind, name: String, message: String, flow: FlowEventView) {
        self.push(kind, name, message, Vec::new(), Some(flow));
    }

    /// How many were told.
    pub fn told(&self) -> u64 {
        self.0.ring.borrow().next
    }

    fn push(
        &self,
        kind: EventKind,
        name: String,
        message: String,
        conditions: Vec<Condition>,
        flow: Option<FlowEventView>,
    ) {
        let time = clock::rfc3339(SystemTime::now());
        // Its number makes it an event.
        let event = Event { id: String::new(), time, kind, name, message, conditions, flow };
        self.0.ring.send_modify(|ring| ring.push(event));
    }

    /// Lets every watcher end after what it has not heard yet.
    pub fn end(&self) {
        self.0.ring.send_modify(|ring| ring.ended = true);
    }

    /// Watchers that were cut because they were too slow.
    pub fn overruns(&self) -> u64 {
        self.0.overruns.load(Ordering::Relaxed)
    }

    /// Watchers at the moment.
    pub fn watchers(&self) -> usize {
        MAX_WATCHERS - self.0.room.available_permits()
    }

    /// Watches; `None` where [`MAX_WATCHERS`] do already.
    pub fn watch(&self, from: &From) -> Option<Watcher> {
        let place = Arc::clone(&self.0.room).try_acquire_owned().ok()?;
        let ring = self.0.ring.subscribe();
        let (next, missed) = ring.borrow().place(from);
        Some(Watcher { ring, shared: Arc::clone(&self.0), next, missed, _place: place })
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        self.next += 1;
        let id = self.id(self.next);
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { id, ..event }));
    }

    /// Says that every event before this number was seen.
    fn id(&self, before: u64) -> String {
        format!("{:016x}-{before}", self.epoch)
    }

    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// The number to begin with, and whether some before it were missed.
    fn place(&self, from: &From) -> (u64, bool) {
        let next = match from {
            From::Now => return (self.next, false),
            From::Start => return (self.oldest(), false),
            From::After(id) => id.split_once('-').and_then(|(epoch, number)| {
                let ours = u64::from_str_radix(epoch, 16).ok()? == self.epoch;
                number.parse::<u64>().ok().filter(|number| ours && *number <= self.next)
            }),
        };
        match next {
            Some(next) if next >= self.oldest() => (next, false),
            Some(_) | None => (self.oldest(), true),
        }
    }

    /// Events from a number on; `None` where that is no longer kept.
    fn from(&self, next: u64) -> Option<Vec<Arc<Event>>> {
        let skip = usize::try_from(next.checked_sub(self.oldest())?).ok()?;
        Some(self.kept.iter().skip(skip).take(MAX_BATCH).cloned().collect())
    }
}

impl Watcher {
    /// Waits for what comes next.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match self.hear_kept() {
                Heard::Nothing => {}
                heard @ (Heard::Events(_) | Heard::Ended | Heard::Overrun) => return heard,
            }
            if self.ring.changed().await.is_err() {
                return Heard::Ended;
            }
        }
    }

    /// What is kept and was not heard yet.
    pub fn hear_kept(&mut self) -> Heard {
        let ring = self.ring.borrow_and_update();
        if std::mem::take(&mut self.missed) {
            let missed = Event {
                id: ring.id(self.next),
                time: clock::rfc3339(SystemTime::now()),
                kind: EventKind::Missed,
                name: String::new(),
                message: "events are no longer kept: read the state anew".into(),
                conditions: Vec::new(),
                flow: None,
            };
            return Heard::Events(vec![Arc::new(missed)]);
        }
        match ring.from(self.next) {
            None => {
                self.shared.overruns.fetch_add(1, Ordering::Relaxed);
                Heard::Overrun
            }
            Some(events) if !events.is_empty() => {
                self.next += events.len() as u64;
                Heard::Events(events)
            }
            Some(_) if ring.ended => Heard::Ended,
            Some(_) => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(events: &Events, count: usize) {
        for number in 0..count {
            events.tell(EventKind::VipUpdated, format!("vip{number}"), "");
        }
    }

    fn names(heard: Heard) -> Vec<String> {
        match heard {
            Heard::Events(events) => events.iter().map(|event| event.name.clone()).collect(),
            other @ (Heard::Nothing | Heard::Ended | Heard::Overrun) => panic!("{other:?}"),
        }
    }

    fn id(heard: &Heard) -> String {
        match heard {
            Heard::Events(events) => events.last().unwrap().id.clone(),
            other @ (Heard::Nothing | Heard::Ended | Heard::Overrun) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_watcher_hears_everything_from_its_place_on_and_then_waits() {
        let events = Events::default();
        numbered(&events, 2);
        let mut all = events.watch(&From::Start).unwrap();
        let mut new = events.watch(&From::Now).unwrap();
        assert_eq!(names(all.hear_kept()), ["vip0", "vip1"]);
        assert_eq!((all.hear_kept(), new.hear_kept()), (Heard::Nothing, Heard::Nothing));
        let told = tokio::spawn(async move { names(new.hear().await) });
        numbered(&events, 1);
        assert_eq!(told.await.unwrap(), ["vip0"]);
        events.end();
        assert_eq!(names(all.hear().await), ["vip0"], "what was told before the end is heard");
        assert_eq!(all.hear().await, Heard::Ended);
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_where_it_was_or_is_told_that_events_are_gone() {
        let events = Events::with_room(3);
        numbered(&events, 2);
        let seen = id(&events.watch(&From::Start).unwrap().hear_kept());
        numbered(&events, 2);
        let mut back = events.watch(&From::After(seen.clone())).unwrap();
        assert_eq!(names(back.hear_kept()), ["vip0", "vip1"]);
        numbered(&events, 2);
        for lost in [seen, "0000000000000000-1".into(), "nonsense".into(), String::new()] {
            let mut lost = events.watch(&From::After(lost)).unwrap();
            let missed = lost.hear_kept();
            assert!(matches!(&missed, Heard::Events(e) if e[0].kind == EventKind::Missed));
            assert_eq!(names(lost.hear_kept()).len(), 3, "what is kept follows");
            let mut after = events.watch(&From::After(id(&missed))).unwrap();
            assert_eq!(names(after.hear_kept()).len(), 3, "and is not missed again");
        }
    }

    #[tokio::test]
    async fn a_slow_watcher_is_cut_and_counted_and_the_ring_stays_bounded() {
        let events = Events::with_room(3);
        let mut slow = events.watch(&From::Now).unwrap();
        numbered(&events, 3);
        let mut quick = events.watch(&From::Start).unwrap();
        assert_eq!(names(quick.hear_kept()).len(), 3);
        numbered(&events, 1);
        assert_eq!(slow.hear_kept(), Heard::Overrun);
        assert_eq!(names(quick.hear_kept()), ["vip0"]);
        assert_eq!(events.overruns(), 1);
        assert_eq!(events.0.ring.borrow().kept.len(), 3);
    }

    #[tokio::test]
    async fn watchers_are_bounded() {
        let events = Events::default();
        let all: Vec<_> = (0..MAX_WATCHERS).map(|_| events.watch(&From::Now).unwrap()).collect();
        assert!(events.watch(&From::Now).is_none());
        assert_eq!(events.watchers(), MAX_WATCHERS);
        drop(all);
        assert!(events.watch(&From::Now).is_some());
    }
}
