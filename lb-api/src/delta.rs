//! What one task has to tell another of many things, of which few change at a time: a map's changes, merged until they are
//! read. There is never more in it than there are things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type Pending<K, V> = Arc<Mutex<BTreeMap<K, V>>>;

/// The end that tells.
#[derive(Debug)]
pub struct Sender<K, V> {
    pending: Pending<K, V>,
    wake: watch::Sender<()>,
}

/// The end that hears.
#[derive(Debug)]
pub struct Receiver<K, V> {
    pending: Pending<K, V>,
    woken: watch::Receiver<()>,
}

/// Nobody tells anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// Both ends.
pub fn channel<K: Ord, V>() -> (Sender<K, V>, Receiver<K, V>) {
    let pending = Pending::default();
    let (wake, woken) = watch::channel(());
    (Sender { pending: Arc::clone(&pending), wake }, Receiver { pending, woken })
}

impl<K: Ord, V> Sender<K, V> {
    /// Has the other end hear this; of a thing that it was told of before and has not heard, only this.
    pub fn tell(&self, changes: impl IntoIterator<Item = (K, V)>) {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_some() {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
            self.wake.send_replace(());
        }
    }
}

impl<K: Ord, V> Receiver<K, V> {
    /// Waits until something was told that [`Receiver::take`] has not taken.
    ///
    /// # Errors
    ///
    /// The other end is gone.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        self.woken.changed().await.map_err(|_closed| Ended)
    }

    /// What was told since the last call.
    pub fn take(&mut self) -> BTreeMap<K, V> {
        self.woken.mark_unchanged();
        std::mem::take(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_merged_until_they_are_heard_and_the_end_is() {
        let (sender, mut receiver) = channel();
        sender.tell([("a", 1), ("b", 1)]);
        sender.tell([("a", 2)]);
        sender.tell([]);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.take(), [("a", 2), ("b", 1)].into());
        assert_eq!(receiver.take(), [].into());
        sender.tell([("c", 3)]);
        drop(sender);
        assert_eq!(receiver.take(), [("c", 3)].into());
        assert_eq!(receiver.changed().await, Err(Ended));
    }
}
