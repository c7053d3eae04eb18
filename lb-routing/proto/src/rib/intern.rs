//! One copy of each value, however many routes share it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::Keyed;

/// Values below which nothing is swept.
const SWEEP_MIN: usize = 1024;

/// A pool of shared values. Those that nobody uses any more are swept whenever the pool has doubled,
/// so it is at most twice as large as what was in use at the last sweep, or [`SWEEP_MIN`].
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    pool: HashSet<Arc<T>, Keyed>,
    sweep_at: usize,
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    pub(crate) fn new(hash: Keyed) -> Self {
        Self { pool: HashSet::with_hasher(hash), sweep_at: SWEEP_MIN }
    }

    pub(crate) fn intern(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.pool.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.pool.len() >= self.sweep_at {
            self.pool.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (2 * self.pool.len()).max(SWEEP_MIN);
        }
        let value = value.into();
        self.pool.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_are_swept() {
        let mut interner = Interner::<[u32]>::new(Keyed(1));
        let kept = interner.intern(vec![1, 2]);
        assert!(Arc::ptr_eq(&kept, &interner.intern(vec![1, 2])));
        for value in 0..10_000 {
            drop(interner.intern(vec![value]));
        }
        assert!(interner.pool.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&kept, &interner.intern(vec![1, 2])));
    }
}
