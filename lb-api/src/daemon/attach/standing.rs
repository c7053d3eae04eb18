//! Whether clients may be led here: the fast path is on every interface that it is to be on.
//!
//! Packets to a VIP that come in where it is not meet the kernel, which has no way for them, and answers that come in there reach
//! their client from an address that it does not know. So an address is advertised only while the fast path is on every
//! interface that `dataplane.interfaces` names, that is up, and whose frames are not handled elsewhere; and on one at least.
//! Nothing is advertised before that. Later an interface that refuses is tried some times before everything is withdrawn, since
//! it may just have got another name, or the host may be short of memory for a moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lb_routing::Link;

use super::{RETRY, Trouble, is_attachable, vlans};

/// How long an interface may refuse before clients are led elsewhere: three tries.
const PATIENCE: Duration = RETRY.saturating_mul(3);

/// An interface that the fast path is to be on, and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Lacking {
    pub(in crate::daemon) name: String,
    /// Why, in a sentence.
    pub(in crate::daemon) why: String,
}

/// Those of the host's links that are up and not among the carried ones.
pub(super) fn lacking(
    links: &[Link],
    carried: &BTreeSet<u32>,
    patterns: &[String],
    troubles: &[Trouble],
) -> Vec<Lacking> {
    let is_lacking = |link: &&Link| {
        link.up
            && is_attachable(links, link, patterns)
            && !vlans::is_handled_below(links, link, patterns)
            && !carried.contains(&link.ifindex)
    };
    let lacking = |link: &Link| {
        let why = troubles.iter().find(|trouble| trouble.of == Some(link.ifindex));
        let why = why.map_or("it is tried again", |trouble| &trouble.said);
        Lacking { name: link.name.clone(), why: why.to_owned() }
    };
    links.iter().filter(is_lacking).map(lacking).collect()
}

/// What was last said of it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_whole: bool,
    lacking_since: Option<Instant>,
}

impl Standing {
    /// Whether clients may be led here, now that the fast path is on an interface or on none, and lacks some or none.
    pub(super) fn judge(&mut self, is_anywhere: bool, lacks: bool, now: Instant) -> bool {
        self.lacking_since = lacks.then(|| self.lacking_since.unwrap_or(now));
        let is_borne = |since| self.is_whole && now.saturating_duration_since(since) < PATIENCE;
        self.is_whole = is_anywhere && self.lacking_since.is_none_or(is_borne);
        self.is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{link, port};
    use super::*;

    #[test]
    fn clients_are_led_here_once_no_interface_is_lacking_and_until_one_has_refused_for_a_while() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut standing = Standing::default();
        for (secs, is_anywhere, lacks, expected) in [
            (0, false, false, false),
            (1, true, true, false),
            (60, true, true, false),
            (61, true, false, true),
            (70, true, true, true),
            (84, true, true, true),
            (85, true, true, false),
            (86, true, false, true),
            // Each time anew.
            (90, true, true, true),
            (95, true, false, true),
            (100, true, true, true),
            (110, true, true, true),
            // On none it is of no use to wait.
            (111, false, true, false),
            (112, true, true, false),
        ] {
            assert_eq!(standing.judge(is_anywhere, lacks, at(secs)), expected, "{secs}");
        }
    }

    #[test]
    fn an_interface_is_lacking_that_is_up_and_to_be_attached_to_and_is_not() {
        let patterns = ["eth*", "br0"].map(str::to_owned);
        let mut links = vec![
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "wan"),
            link(5, "br0"),
            port(6, "eth2", 5, false),
            port(7, "eth3", 9, true),
            link(9, "red"),
        ];
        let said = Trouble { of: Some(3), said: "interface eth1 has a program".into() };
        let of = |links: &[Link], carried: &[u32]| {
            let carried = carried.iter().copied().collect();
            let all = lacking(links, &carried, &patterns, std::slice::from_ref(&said));
            all.into_iter().map(|it| format!("{}: {}", it.name, it.why)).collect::<Vec<_>>()
        };
        assert_eq!(of(&links, &[2, 3, 5]), [""; 0], "what is handled elsewhere is not lacking");
        assert_eq!(of(&links, &[2, 5]), ["eth1: interface eth1 has a program"]);
        assert_eq!(of(&links, &[2, 3]), ["br0: it is tried again"], "its port is not, too");
        links[2].up = false;
        assert_eq!(of(&links, &[2, 5]), [""; 0], "no packet comes in there");
    }
}
