//! An entry that is added where another CPU may add one of the same key.

use crate::family::Family;
use crate::flow::{self, FlowEntry, FlowKey};
use crate::tables::{FamilyTables, InsertError};

/// How often an entry is added for which there is no room beside one that is not found. Another CPU has taken a slot for it and is about
/// to write what takes less time than a lookup; or both have seen one another and withdrawn, which they may do again a few times.
pub(crate) const MOST_ADDS: u32 = 8;

/// Adds an entry where its key has none; or the entry that it has.
///
/// # Errors
///
/// Why there is neither. `Exists` where another CPU was at it each time.
#[inline(always)]
pub(super) fn add<A: Family, T: FamilyTables<A>>(
    tables: &T,
    key: &FlowKey<A>,
    entry: &mut FlowEntry,
) -> Result<Option<T::Flow>, InsertError> {
    let (mut adds, mut ended) = (0, InsertError::Exists);
    while adds < MOST_ADDS {
        adds += 1;
        match flow::insert(tables, key, entry) {
            Ok(()) => return Ok(None),
            Err(error) => ended = error,
        }
        // Where there was no room for this one there may have been for another CPU's.
        if let Some(first) = tables.flow(key) {
            return Ok(Some(first));
        }
        if let InsertError::Full = ended {
            break;
        }
    }
    Err(ended)
}
