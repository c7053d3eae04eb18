//! Who stands around the peer under test, and how each kind of peer is told so.

use std::fmt::Write as _;

use crate::network::{Family, PEER};

/// The AS of the peer under test.
pub(crate) const OUR_AS: u32 = 64500;

/// The AS of an end; each is external.
pub(crate) fn asn_of(number: u16) -> u32 {
    65000 + u32::from(number)
}

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It tells, and is told nothing.
    Feeder,
    /// It is told, and nothing is taken from it.
    Sink,
    /// It tells and is told.
    Both,
}

/// Ends: feeders from 1 on, then sinks, then those that are both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) family: Family,
    pub(crate) feeders: u16,
    pub(crate) sinks: u16,
    pub(crate) both: u16,
    /// 0: no keepalives.
    pub(crate) hold_time_secs: u16,
}

impl Layout {
    pub(crate) const fn new(feeders: u16, sinks: u16) -> Self {
        Self { family: Family::Four, feeders, sinks, both: 0, hold_time_secs: 0 }
    }

    pub(crate) fn ends(&self) -> impl Iterator<Item = (u16, Role)> {
        let Self { feeders, sinks, both, .. } = *self;
        (1..=feeders + sinks + both).map(move |number| {
            let role = if number <= feeders {
                Role::Feeder
            } else if number <= feeders + sinks {
                Role::Sink
            } else {
                Role::Both
            };
            (number, role)
        })
    }

    /// As arguments of `--serve`.
    pub(crate) fn to_arguments(self) -> [String; 5] {
        let family = u16::from(self.family == Family::Six);
        [family, self.feeders, self.sinks, self.both, self.hold_time_secs]
            .map(|number| number.to_string())
    }

    pub(crate) fn from_arguments([six, feeders, sinks, both, hold_time_secs]: [u16; 5]) -> Self {
        let family = if six == 0 { Family::Four } else { Family::Six };
        Self { family, feeders, sinks, both, hold_time_secs }
    }

    pub(crate) fn bird(&self) -> String {
        let mut text = format!("router id {PEER};\nprotocol device {{}}\n");
        let (peer, hold) = (self.family.peer(), self.hold_time_secs);
        let channel = if self.family == Family::Six { "ipv6" } else { "ipv4" };
        for (number, role) in self.ends() {
            let (import, export) = match role {
                Role::Feeder => ("all", "none"),
                Role::Sink => ("none", "all"),
                Role::Both => ("all", "all"),
            };
            let (address, asn) = (self.family.end(number), asn_of(number));
            let _infallible = writeln!(
                text,
                "protocol bgp p{number} {{ local {peer} as {OUR_AS}; neighbor {address} as {asn}; passive yes; \
                 hold time {hold}; {channel} {{ import {import}; export {export}; }}; }}"
            );
        }
        text
    }

    pub(crate) fn frr(&self) -> String {
        let (hold, keepalive) = (self.hold_time_secs, self.hold_time_secs / 3);
        let mut text = format!(
            "router bgp {OUR_AS}\n bgp router-id {PEER}\n timers bgp {keepalive} {hold}\n \
             no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n"
        );
        for (number, _) in self.ends() {
            let (address, asn) = (self.family.end(number), asn_of(number));
            let _infallible = write!(
                text,
                " neighbor {address} remote-as {asn}\n neighbor {address} passive\n neighbor {address} advertisement-interval 0\n"
            );
        }
        let family = if self.family == Family::Six { "ipv6" } else { "ipv4" };
        let _infallible = writeln!(text, " address-family {family} unicast");
        for (number, role) in self.ends() {
            let address = self.family.end(number);
            let _infallible = writeln!(text, "  neighbor {address} activate");
            let direction = match role {
                Role::Feeder => "out",
                Role::Sink => "in",
                Role::Both => continue,
            };
            let _infallible = writeln!(text, "  neighbor {address} route-map none {direction}");
        }
        text + " exit-address-family\n!\nroute-map none deny 10\n"
    }

    /// Its feeder is told nothing because there is nobody else to tell of.
    pub(crate) fn gobgp(&self) -> String {
        let mut text = format!(
            "[global.config]\nas = {OUR_AS}\nrouter-id = \"{PEER}\"\nlocal-address-list = [\"{PEER}\"]\n"
        );
        for (number, _) in self.ends() {
            let (address, asn) = (self.family.end(number), asn_of(number));
            let _infallible = write!(
                text,
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
                 [neighbors.transport.config]\npassive-mode = true\n"
            );
        }
        text
    }
}
