//! What must hold whatever bytes arrive: the bodies of the fuzz targets in `lb-routing/fuzz`. Unit tests run them over the
//! corpus that is kept there, so that a finding stays found.

mod codec;
mod session;
#[cfg(test)]
mod tests;

use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN};

pub use self::codec::{codec, survive};
pub use self::session::session;

/// A body behind a header that says its length.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(MAX_MESSAGE_LEN - HEADER_LEN)];
    let len = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16], len.to_be_bytes().as_slice(), &[kind], body].concat()
}
