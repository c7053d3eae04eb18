//! Delimits messages in a byte stream and checks their headers (RFC 4271 §4.1, §6.1).

use super::{Notification, error};

/// Octets of the message header.
pub const HEADER_LEN: usize = 19;
/// Octets of the largest message, unless both sides take larger ones.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// Octets of the largest one then (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65_535;

const MARKER_LEN: usize = 16;

/// What a message's type octet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::RouteRefresh => "ROUTE-REFRESH",
        }
    }

    pub(super) fn of(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    /// Whether a message of this type may have this length. One NOTIFICATION too short for a code is
    /// let through: an error in it cannot be answered by another (RFC 4271 §6.4).
    fn fits(self, len: usize) -> bool {
        match self {
            // RFC 8654 §4: of these two none is longer than ever.
            Self::Open => (HEADER_LEN + 10..=MAX_MESSAGE_LEN).contains(&len),
            Self::Update => len >= HEADER_LEN + 4,
            Self::Notification => true,
            Self::Keepalive => len == HEADER_LEN,
            Self::RouteRefresh => len >= HEADER_LEN + 4,
        }
    }
}

/// The length of the message that `bytes` begin with, once all of it is there.
///
/// # Errors
///
/// A Message Header Error, as soon as the octets that show it are there (RFC 4271 §6.1).
pub fn frame(bytes: &[u8]) -> Result<Option<usize>, Notification> {
    frame_within(bytes, MAX_MESSAGE_LEN)
}

/// [`frame`] with another bound.
fn frame_within(bytes: &[u8], max: usize) -> Result<Option<usize>, Notification> {
    let marker = bytes.get(..MARKER_LEN).unwrap_or(bytes);
    if marker.iter().any(|&octet| octet != 0xff) {
        return Err(Notification::new(error::CONNECTION_NOT_SYNCHRONIZED));
    }
    let Some(&[high, low, kind]) = bytes.get(MARKER_LEN..).and_then(|rest| rest.first_chunk())
    else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let bad_length = || Notification::with_data(error::BAD_MESSAGE_LENGTH, [high, low]);
    if !(HEADER_LEN..=max).contains(&len) {
        return Err(bad_length());
    }
    let kind =
        Kind::of(kind).ok_or_else(|| Notification::with_data(error::BAD_MESSAGE_TYPE, [kind]))?;
    if !kind.fits(len) {
        return Err(bad_length());
    }
    Ok((bytes.len() >= len).then_some(len))
}

/// A whole message's type and what follows its header; whoever delimited it knows how long it may be.
pub(super) fn split(bytes: &[u8]) -> Result<(Kind, &[u8]), Notification> {
    let whole = frame_within(bytes, MAX_EXTENDED_LEN)?.is_some_and(|len| len == bytes.len());
    match bytes.split_at_checked(HEADER_LEN) {
        Some((header, body)) if whole => header
            .last()
            .and_then(|&octet| Kind::of(octet))
            .map(|kind| (kind, body))
            .ok_or_else(|| Notification::new(error::BAD_MESSAGE_TYPE)),
        _ => Err(Notification::new(error::BAD_MESSAGE_LENGTH)),
    }
}

/// The body of an UPDATE; `None` of any other message.
pub(super) fn update_body(bytes: &[u8]) -> Option<&[u8]> {
    split(bytes).ok().filter(|(kind, _)| *kind == Kind::Update).map(|(_, body)| body)
}

/// A message from its type and body; the caller keeps the body within [`MAX_MESSAGE_LEN`].
pub(super) fn seal(kind: Kind, body: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + body.len();
    debug_assert!(len <= MAX_MESSAGE_LEN, "a message of {len} octets");
    let mut message = Vec::with_capacity(len);
    message.extend([0xff; MARKER_LEN]);
    message.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    message.push(kind as u8);
    message.extend(body);
    message
}

/// Writes the header of an UPDATE of this length.
pub(super) fn write_header(header: &mut [u8], [high, low]: [u8; 2]) {
    header.fill(0xff);
    header[MARKER_LEN..].copy_from_slice(&[high, low, Kind::Update as u8]);
}

/// Collects a byte stream and gives out its messages.
///
/// Bound: after [`Framer::next_message`] returned `None`, less than [`MAX_MESSAGE_LEN`] octets wait, or
/// [`MAX_EXTENDED_LEN`].
#[derive(Clone, Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    taken: usize,
    max: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self { buffer: Vec::new(), taken: 0, max: MAX_MESSAGE_LEN }
    }
}

impl Framer {
    /// An empty one, for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes extended messages from now on (RFC 8654).
    pub const fn extend(&mut self) {
        self.max = MAX_EXTENDED_LEN;
    }

    /// Takes bytes from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend(bytes);
    }

    /// The next whole message, if it is there; call it until it is `None`.
    ///
    /// # Errors
    ///
    /// A Message Header Error, and the same again from then on: a stream does not recover.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, Notification> {
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some(len) = frame_within(waiting, self.max)? else { return Ok(None) };
        let start = self.taken;
        self.taken += len;
        Ok(self.buffer.get(start..self.taken))
    }
}

#[cfg(test)]
mod tests;
