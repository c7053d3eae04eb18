//! What a VIP may say of the table that a hash chooses from.

use lb_api_types::vip::{Algorithm, Backend};
use lb_dataplane::maglev::SIZES;

use super::goes_by_turns;
use crate::read::Object;

/// Reads its size, if it is said.
pub(super) fn read(
    spec: &Object<'_>,
    algorithm: Option<Algorithm>,
    backends: Option<&[Backend]>,
) -> Option<Option<u32>> {
    let Some(cursor) = spec.field("maglev_table_size") else { return Some(None) };
    let size = cursor.number(SIZES[0]..=SIZES[SIZES.len() - 1])?;
    if let Some(algorithm) = algorithm.filter(|algorithm| goes_by_turns(*algorithm)) {
        return cursor.wrong(format!(
            "is said, but {algorithm} has no such table: leave it out, or use maglev or source-hash"
        ));
    }
    if !SIZES.contains(&size) {
        let sizes = SIZES.map(|size| size.to_string()).join(", ");
        return cursor.wrong(format!("is {size}, but has to be a prime of this list: {sizes}"));
    }
    let backends = backends.unwrap_or_default().len();
    if backends > size as usize {
        return cursor.wrong(format!(
            "is {size}, but {backends} backends need a slot each at least, and a hundred each for even shares: use a larger one, or \
             leave it out"
        ));
    }
    Some(Some(size))
}
