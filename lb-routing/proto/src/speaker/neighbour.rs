//! A neighbour as the engine knows it.

use super::dynamic::Dynamic;
use super::graceful::Stale;
use super::limit::LimitSaid;
use super::pace::Pace;
use crate::rib::Gone;
use crate::session::{Session, Up};

/// A neighbour: its session, and what is known of its paths.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) session: Session,
    /// The place of what its paths are judged by.
    pub(super) judge: u16,
    /// Its AS number in its last session.
    pub(super) asn: Option<u32>,
    /// While Established.
    pub(super) channel: Option<Channel>,
    /// Its paths in the RIB.
    pub(super) received: u64,
    /// Those of them that can be used.
    pub(super) accepted: u64,
    /// It told more paths of a prefix than are taken from one.
    pub(super) overflowed: bool,
    /// What import refuses is not kept for the rest of the session: it took too much room.
    pub(super) keeps_no_more: bool,
    /// Import refused routes in this session that are not kept.
    pub(super) misses_some: bool,
    /// UPDATEs that were malformed or of no use, since the start.
    pub(super) malformed: u64,
    /// What was said last of that.
    pub(super) last_malformed: String,
    /// The one that is read is.
    pub(super) faulty: bool,
    /// What was said of that of late.
    pub(super) lines: Pace,
    /// How often it had its paths marked of late.
    pub(super) marks: Pace,
    /// Routes that import refused, since the start.
    pub(super) refused: u64,
    /// Those of them that were to be kept, for which there was no room.
    pub(super) not_kept: u64,
    /// What was said of its limit since it was last below.
    pub(super) limit_said: LimitSaid,
    /// Some of them are left from a session that ended.
    pub(super) stale: Option<Stale>,
    /// It tells all of some families again (RFC 7313).
    pub(super) again: Option<Stale>,
    /// It came by itself.
    pub(super) dynamic: Option<Dynamic>,
}

/// What an Established session has.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) up: Up,
    /// The place of its group.
    pub(super) group: usize,
}

impl Neighbour {
    pub(super) fn new(session: Session, judge: u16) -> Self {
        Self {
            session,
            judge,
            asn: None,
            channel: None,
            received: 0,
            accepted: 0,
            overflowed: false,
            keeps_no_more: false,
            misses_some: false,
            malformed: 0,
            last_malformed: String::new(),
            faulty: false,
            lines: Pace::default(),
            marks: Pace::default(),
            refused: 0,
            not_kept: 0,
            limit_said: LimitSaid::Nothing,
            stale: None,
            again: None,
            dynamic: None,
        }
    }

    /// Some of its paths are gone.
    pub(super) const fn lose(&mut self, gone: Gone) {
        self.received -= gone.all;
        self.accepted -= gone.usable;
    }
}
