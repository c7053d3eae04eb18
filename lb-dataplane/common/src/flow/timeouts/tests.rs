use super::*;

#[test]
fn what_is_over_stays_for_as_long_as_there_is_room() {
    let timeouts = Timeouts::default();
    let of = |entries| timeouts.with_taken(entries, 96_000).tcp_closed;
    for few in [0, 1, 3000] {
        assert_eq!(of(few), seconds(240));
    }
    assert_eq!(of(7500), seconds(240) - (seconds(240) - seconds(10)) / 2);
    for many in [12_000, 96_000, u64::MAX] {
        assert_eq!(of(many), seconds(10));
    }
    assert!((3000..12_000).all(|n| of(n) >= of(n + 1)));
    let short = Timeouts { tcp_closed: 0, ..timeouts };
    assert_eq!(short.with_taken(50_000, 96_000), short);
    assert_eq!(timeouts.with_taken(9, 0), timeouts, "no table");
    let others =
        Timeouts { tcp_closed: timeouts.tcp_closed, ..timeouts.with_taken(96_000, 96_000) };
    assert_eq!(others, timeouts, "nothing else is shorter");
}

#[test]
fn what_is_not_answered_stays_a_minute_and_udp_two() {
    use crate::flow::{SCTP, UDP};
    let timeouts = Timeouts::default();
    let of = |timeouts: Timeouts| [TCP, SCTP, UDP].map(|protocol| timeouts.of(protocol, 0));
    assert_eq!(of(timeouts), [60, 60, 120].map(seconds), "RFC 7857 section 2.1, RFC 4787 REQ-5");
    let reset = timeouts.of(TCP, STATE_CLIENT_RESET);
    assert_eq!(reset, seconds(60), "a forged RST has a forged SYN's flow stay no longer");
    assert_eq!(of(Timeouts { half_open: seconds(240), ..timeouts }), [240; 3].map(seconds));
    let short = Timeouts { half_open: seconds(5), udp_answered: seconds(9), ..timeouts };
    assert_eq!(of(short), [5, 5, 9].map(seconds), "as it is asked for");
}

/// Seconds of ageing's walk over a table.
const WALK: usize = 16;

/// A table of connections that are closed as soon as they began.
struct Closed {
    /// By part of the walk, and by age in seconds: entries.
    parts: [std::collections::VecDeque<u64>; WALK],
    capacity: u64,
    asked: Timeouts,
    now: Timeouts,
    seen: u64,
    /// Those that the last walk saw.
    found: u64,
    second: usize,
}

impl Closed {
    fn new(flows: u64, asked: Timeouts) -> Self {
        let parts = std::array::from_fn(|_| std::collections::VecDeque::new());
        Self { parts, capacity: 2 * flows, asked, now: asked, seen: 0, found: 0, second: 0 }
    }

    fn taken(&self) -> u64 {
        self.parts.iter().flatten().sum()
    }

    /// So many begin in each of some seconds; the most entries that there were, and the shortest time-out.
    fn run(&mut self, flows: u64, seconds: usize) -> (u64, u32) {
        let (mut most, mut shortest) = (0, u32::MAX);
        for _ in 0..seconds {
            let part = self.second % WALK;
            for entries in &mut self.parts {
                entries.push_front(2 * flows / WALK as u64);
            }
            most = most.max(self.taken());
            self.seen += self.parts[part].iter().sum::<u64>();
            self.parts[part].truncate(self.now.tcp_closed as usize);
            self.second += 1;
            if part == WALK - 1 {
                self.found = std::mem::take(&mut self.seen);
            }
            self.now = self.asked.with_taken(self.found.max(self.seen), self.capacity);
            shortest = shortest.min(self.now.tcp_closed);
        }
        (most, shortest)
    }
}

#[test]
fn closed_connections_refuse_no_new_one_that_ten_seconds_of_each_would_let_in() {
    let ten = Timeouts { tcp_closed: seconds(10), ..Timeouts::default() };
    let four_minutes = Timeouts::default();
    const FLOWS: u64 = 4 << 20;
    // A burst upon what there is, at rates up to what ten seconds of each have room for.
    for calm in [0, 500, 5000, 20_000] {
        for burst in [20_000, 50_000, 100_000, 150_000] {
            let most = |timeouts| {
                let mut table = Closed::new(FLOWS, timeouts);
                table.run(calm, 600);
                table.run(burst, 120).0
            };
            assert!(most(ten) <= 2 * FLOWS, "too much for either");
            let taken = most(four_minutes);
            assert!(taken <= 2 * FLOWS, "{calm} and then {burst} a second: {taken}");
        }
    }
    let mut table = Closed::new(FLOWS, four_minutes);
    assert_eq!(table.run(500, 600).1, seconds(240), "four minutes of 500 a second");
    let (most, _) = table.run(20_000, 600);
    assert!(most < FLOWS / 2, "a quarter of the table, not 4.8 million flows: {most}");
}
