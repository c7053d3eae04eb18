//! NOTIFICATION: its codes in the RFCs' words, and how people read it (RFC 4271 §4.5, §6).

use std::fmt;
use std::net::Ipv4Addr;

use super::{Family, HEADER_LEN, MAX_MESSAGE_LEN, Notification, attributes, frame};

/// Octets of data that fit; longer data is cut.
const MAX_DATA_LEN: usize = MAX_MESSAGE_LEN - HEADER_LEN - 2;

/// Octets of a shutdown communication (RFC 9003 §2).
const MAX_COMMUNICATION_LEN: usize = 255;

macro_rules! errors {
    ($($name:ident = ($code:literal, $subcode:literal), $words:literal;)*) => {
        /// Error codes with their subcodes, for [`Notification::new`].
        pub mod error {
            $(#[doc = $words] pub const $name: (u8, u8) = ($code, $subcode);)*
        }

        fn words(code: (u8, u8)) -> Option<&'static str> {
            match code {
                $(error::$name => Some($words),)*
                _ => None,
            }
        }
    };
}

errors! {
    MESSAGE_HEADER_ERROR = (1, 0), "Message Header Error";
    CONNECTION_NOT_SYNCHRONIZED = (1, 1), "Message Header Error / Connection Not Synchronized";
    BAD_MESSAGE_LENGTH = (1, 2), "Message Header Error / Bad Message Length";
    BAD_MESSAGE_TYPE = (1, 3), "Message Header Error / Bad Message Type";
    OPEN_MESSAGE_ERROR = (2, 0), "OPEN Message Error";
    UNSUPPORTED_VERSION_NUMBER = (2, 1), "OPEN Message Error / Unsupported Version Number";
    BAD_PEER_AS = (2, 2), "OPEN Message Error / Bad Peer AS";
    BAD_BGP_IDENTIFIER = (2, 3), "OPEN Message Error / Bad BGP Identifier";
    UNSUPPORTED_OPTIONAL_PARAMETER = (2, 4), "OPEN Message Error / Unsupported Optional Parameter";
    UNACCEPTABLE_HOLD_TIME = (2, 6), "OPEN Message Error / Unacceptable Hold Time";
    UNSUPPORTED_CAPABILITY = (2, 7), "OPEN Message Error / Unsupported Capability";
    ROLE_MISMATCH = (2, 11), "OPEN Message Error / Role Mismatch";
    UPDATE_MESSAGE_ERROR = (3, 0), "UPDATE Message Error";
    MALFORMED_ATTRIBUTE_LIST = (3, 1), "UPDATE Message Error / Malformed Attribute List";
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = (3, 2), "UPDATE Message Error / Unrecognized Well-known Attribute";
    MISSING_WELL_KNOWN_ATTRIBUTE = (3, 3), "UPDATE Message Error / Missing Well-known Attribute";
    ATTRIBUTE_FLAGS_ERROR = (3, 4), "UPDATE Message Error / Attribute Flags Error";
    ATTRIBUTE_LENGTH_ERROR = (3, 5), "UPDATE Message Error / Attribute Length Error";
    INVALID_ORIGIN_ATTRIBUTE = (3, 6), "UPDATE Message Error / Invalid ORIGIN Attribute";
    INVALID_NEXT_HOP_ATTRIBUTE = (3, 8), "UPDATE Message Error / Invalid NEXT_HOP Attribute";
    OPTIONAL_ATTRIBUTE_ERROR = (3, 9), "UPDATE Message Error / Optional Attribute Error";
    INVALID_NETWORK_FIELD = (3, 10), "UPDATE Message Error / Invalid Network Field";
    MALFORMED_AS_PATH = (3, 11), "UPDATE Message Error / Malformed AS_PATH";
    HOLD_TIMER_EXPIRED = (4, 0), "Hold Timer Expired";
    FINITE_STATE_MACHINE_ERROR = (5, 0), "Finite State Machine Error";
    UNEXPECTED_MESSAGE_IN_OPEN_SENT = (5, 1), "Finite State Machine Error / Receive Unexpected Message in OpenSent State";
    UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM = (5, 2), "Finite State Machine Error / Receive Unexpected Message in OpenConfirm State";
    UNEXPECTED_MESSAGE_IN_ESTABLISHED = (5, 3), "Finite State Machine Error / Receive Unexpected Message in Established State";
    CEASE = (6, 0), "Cease";
    MAXIMUM_NUMBER_OF_PREFIXES_REACHED = (6, 1), "Cease / Maximum Number of Prefixes Reached";
    ADMINISTRATIVE_SHUTDOWN = (6, 2), "Cease / Administrative Shutdown";
    PEER_DE_CONFIGURED = (6, 3), "Cease / Peer De-configured";
    ADMINISTRATIVE_RESET = (6, 4), "Cease / Administrative Reset";
    CONNECTION_REJECTED = (6, 5), "Cease / Connection Rejected";
    OTHER_CONFIGURATION_CHANGE = (6, 6), "Cease / Other Configuration Change";
    CONNECTION_COLLISION_RESOLUTION = (6, 7), "Cease / Connection Collision Resolution";
    OUT_OF_RESOURCES = (6, 8), "Cease / Out of Resources";
    HARD_RESET = (6, 9), "Cease / Hard Reset";
    BFD_DOWN = (6, 10), "Cease / BFD Down";
    ROUTE_REFRESH_MESSAGE_ERROR = (7, 0), "ROUTE-REFRESH Message Error";
    INVALID_MESSAGE_LENGTH = (7, 1), "ROUTE-REFRESH Message Error / Invalid Message Length";
    SEND_HOLD_TIMER_EXPIRED = (8, 0), "Send Hold Timer Expired";
}

impl Notification {
    /// One without data; codes stand in [`error`].
    #[must_use]
    pub const fn new((code, subcode): (u8, u8)) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// One with data.
    #[must_use]
    pub fn with_data((code, subcode): (u8, u8), data: impl Into<Vec<u8>>) -> Self {
        Self { code, subcode, data: data.into() }
    }

    /// One with a shutdown communication, for the two Cease subcodes that carry it; it is cut at 255
    /// octets (RFC 9003 §2).
    #[must_use]
    pub fn with_communication(code: (u8, u8), text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_COMMUNICATION_LEN)];
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let mut data = vec![length];
        data.extend(text.bytes());
        Self::with_data(code, data)
    }

    /// The shutdown communication, if one is there and valid UTF-8 (RFC 9003 §2).
    #[must_use]
    pub fn communication(&self) -> Option<&str> {
        match (self.code, self.subcode) {
            error::ADMINISTRATIVE_SHUTDOWN | error::ADMINISTRATIVE_RESET => {}
            _ => return None,
        }
        let (&length, text) = self.data.split_first()?;
        let text = text.get(..usize::from(length))?;
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// What its data says, where an RFC or a habit of other speakers gives it a meaning.
    fn detail(&self) -> Option<String> {
        Some(match ((self.code, self.subcode), &*self.data) {
            (error::BAD_MESSAGE_LENGTH, &[high, low]) => {
                format!("{} octets", u16::from_be_bytes([high, low]))
            }
            (error::BAD_MESSAGE_TYPE, [kind]) => format!("type {kind}"),
            (error::UNSUPPORTED_VERSION_NUMBER, [0, version]) => format!("version {version}"),
            // No RFC says so, but others do, too: what was refused.
            (error::BAD_PEER_AS, &[high, low]) => format!("AS {}", u16::from_be_bytes([high, low])),
            (error::BAD_PEER_AS, &[a, b, c, d]) => {
                format!("AS {}", u32::from_be_bytes([a, b, c, d]))
            }
            (error::BAD_BGP_IDENTIFIER, &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
            (error::UNSUPPORTED_OPTIONAL_PARAMETER, [kind]) => format!("parameter {kind}"),
            (error::UNACCEPTABLE_HOLD_TIME, &[high, low]) => {
                format!("{} s", u16::from_be_bytes([high, low]))
            }
            // RFC 5492 §5: each with its length and value.
            (error::UNSUPPORTED_CAPABILITY, [code, ..]) => format!("capability {code}"),
            ((3, _), attribute @ [_, code, _, ..]) => {
                let octets = attributes::hexadecimal(attribute);
                format!("{} ({code}), it was {octets}", attributes::name(*code))
            }
            // RFC 6608 §3.
            ((5, 1..=3), [kind]) => frame::Kind::of(*kind)?.name().to_owned(),
            // RFC 4486 §4.
            (error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED, &[high, low, safi, a, b, c, d]) => {
                let family = Family { afi: u16::from_be_bytes([high, low]), safi };
                format!("{} at most of {family}", u32::from_be_bytes([a, b, c, d]))
            }
            _ => return None,
        })
    }

    /// In the RFCs' words, on one line: `Cease / Administrative Shutdown: "maintenance"`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// Cease / Hard Reset around this one (RFC 8538 §3.1): the session is over, whoever keeps routes of others.
    #[must_use]
    pub(crate) fn hardened(&self) -> Self {
        let within = [&[self.code, self.subcode][..], &self.data].concat();
        Self::with_data(error::HARD_RESET, within)
    }

    /// What a Hard Reset is around.
    fn within(&self) -> Option<Self> {
        match (self.code, self.subcode, &*self.data) {
            (6, 9, &[code, subcode, ref data @ ..]) if (code, subcode) != error::HARD_RESET => {
                Some(Self::with_data((code, subcode), data))
            }
            _ => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.code, self.subcode];
        body.extend(self.data.iter().take(MAX_DATA_LEN));
        frame::seal(frame::Kind::Notification, &body)
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (words((self.code, self.subcode)), words((self.code, 0))) {
            (Some(words), _) => f.write_str(words)?,
            (None, Some(words)) => write!(f, "{words} / subcode {}", self.subcode)?,
            (None, None) => write!(f, "error {}/{}", self.code, self.subcode)?,
        }
        if let Some(within) = self.within() {
            return write!(f, " ({within})");
        }
        if let Some(detail) = self.detail() {
            return write!(f, ": {detail}");
        }
        // Escaped: the text is the neighbour's and ends in our log.
        self.communication().map_or(Ok(()), |text| write!(f, ": {text:?}"))
    }
}

/// Reads any body; one without a code becomes error 0/0, since no error here can be answered
/// (RFC 4271 §6.4).
pub(super) fn decode(body: &[u8]) -> Notification {
    match body {
        [code, subcode, data @ ..] => Notification::with_data((*code, *subcode), data),
        _ => Notification::with_data((0, 0), body),
    }
}

#[cfg(test)]
mod tests;
