//! What becomes of a CPU that holds an entry while another one gives its memory to a stranger's.

use std::rc::Rc;

use super::*;
use crate::family::{V4, V6};
use crate::flow::{DIRECTION_TO_CLIENT, STATE_GOING, STATE_REPLIED};
use crate::model::folded;
use crate::model::memory::{self, Torn};

/// What another CPU does at once: ends the client's flow in one way or the other, and begins flows in its memory.
const OTHERS: [&[Act]; 6] = [
    &[Act::Stranger(SYN)],
    &[Act::Client(SYN)],
    &[Act::Client(SYN), Act::Stranger(SYN)],
    &[Act::SweepAll, Act::Stranger(SYN)],
    &[Act::SweepAll, Act::Client(SYN)],
    &[Act::Stranger(SYN), Act::Client(SYN), Act::Stranger(SYN)],
];

const HELD: [Act; 8] = [
    Act::Client(SYN),
    Act::Client(ACK),
    Act::Client(FIN),
    Act::Backend(1, SYN_ACK),
    Act::Backend(1, ACK),
    Act::Backend(1, FIN),
    Act::MarkAll,
    Act::SweepAll,
];

/// A SYN that was not answered for longer than may be, and what ageing makes of it while the answer comes after all.
const UNANSWERED: Before = (&[Act::Client(SYN)], LONG, &[]);
const AGED: &[Act] = &[Act::MarkAll, Act::SweepAll, Act::Stranger(SYN)];

const WRITTEN: [Option<Torn>; 3] = [
    None,
    Some(Torn { is_state_first: true, steps: 1 }),
    Some(Torn { is_state_first: false, steps: 1 }),
];

/// More steps than any of these acts has, reads of entries included.
const MAX_STEPS: usize = 250;

/// Every act, held up at each of its steps, reads of an entry included, while another CPU ends the flow and gives its memory
/// away: whole, or so that half of the new entry is there at first.
#[test]
fn whoever_holds_an_entry_that_becomes_a_strangers_neither_follows_nor_changes_it() {
    let mut held = 0;
    for world in WORLDS {
        for start in &BEFORE[1..] {
            for (act, others) in HELD.iter().flat_map(|act| OTHERS.map(|others| (*act, others))) {
                for torn in WRITTEN {
                    let run = |steps: &usize| hold(world(*start, 2), act, *steps, others, torn);
                    held += (0..MAX_STEPS).take_while(run).count();
                }
            }
        }
        for torn in WRITTEN {
            let answer = Act::Backend(1, SYN_ACK);
            let run = |steps: &usize| hold(world(UNANSWERED, 2), answer, *steps, AGED, torn);
            held += (0..MAX_STEPS).take_while(run).count();
        }
    }
    assert!(held > 30_000, "{held}");
}

/// Runs one case; whether the act had so many steps.
fn hold(
    tables: ModelTables,
    act: Act,
    steps: usize,
    others: &'static [Act],
    torn: Option<Torn>,
) -> bool {
    let tables = Rc::new(tables);
    let other_cpu = Rc::clone(&tables);
    let came_in = Rc::new(std::cell::Cell::new(false));
    let comes_in = Rc::clone(&came_in);
    memory::after(steps, move || {
        comes_in.set(true);
        memory::tear(torn);
        run_all(&other_cpu, others);
        memory::tear(None);
    });
    let sent = act.run(&tables);
    let came_in = came_in.get();
    memory::finish();
    let what = || format!("{act:?}, at step {steps} {others:?}, {torn:?}");

    if let Some((Reason::ForwardedToBackend | Reason::ForwardedToClient, frame)) = sent {
        assert!(is_of_client(&frame, !tables.sources.is_empty()), "{}: {frame:?}", what());
    }
    // The one source port may be the stranger's by then: what a backend sends there is, too.
    let is_strangers = matches!(act, Act::Backend(..)) && !tables.sources.is_empty();
    if !is_strangers && !matches!(others.last(), Some(Act::Client(_))) {
        assert!(is_strangers_unharmed(&tables), "{}", what());
    }
    // Of a flow that two CPUs begin at once and a third ends, half may be left: until ageing comes by.
    run_all(&tables, &[Act::SweepAll, Act::MarkAll, Act::SweepAll]);
    assert!(!leaks(&tables), "{}", what());
    tables.clock.set(tables.clock.get() + LONG);
    // A claim that nobody carries out is found in one pass, and what it leaves behind in the next.
    for _ in 0..2 {
        run_all(&tables, &[Act::MarkAll, Act::SweepAll]);
    }
    assert_eq!((tables.keys(), tables.keys6()), (vec![], vec![]), "{}", what());
    counted::each_flow_counts_once_until_it_is_closed(&tables, &what());
    came_in
}

/// Whether a frame is from the client to a backend, or from the VIP to who has the port, with sums that fit.
fn is_of_client(frame: &[u8], across: bool) -> bool {
    let is_v6 = frame[12] == 0x86;
    let (addresses, tcp) = if is_v6 { (22..54, 54) } else { (26..34, 34) };
    let tcp = &frame[tcp..];
    let (from, to) = frame[addresses.clone()].split_at(addresses.len() / 2);
    let ends = (from, port(tcp, 0), to, port(tcp, 2));
    let client6 = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let stranger6 = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let vip6 = [0x20, 1, 0xd, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let seen: (&[u8], u16) = if across { (&[192, 0, 2, 9], 4000) } else { (&[10, 1, 0, 1], 1000) };
    let is_right = match ends {
        (from, from_port, [10, 2, 0, 1 | 2], 8080) => (from, from_port) == seen,
        (from, 80, to, 1000) if across => from == vip6 && (to == client6 || to == stranger6),
        (from, 80, to, 1000) => (from, to) == (&[192, 0, 2, 1], &[10, 1, 0, 1]),
        _ => false,
    };
    let pseudo = [from, to, &[0, 6], &(tcp.len() as u16).to_be_bytes()].concat();
    let words: Vec<u16> = [&pseudo, tcp]
        .concat()
        .chunks(2)
        .map(|word| u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
        .collect();
    is_right && matches!(folded(&words), 0 | 0xffff)
}

fn port(tcp: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([tcp[at], tcp[at + 1]])
}

/// Whether the entries of the stranger's flow say no more than that it has begun.
fn is_strangers_unharmed(tables: &ModelTables) -> bool {
    const SAID: u32 =
        STATE_GOING | STATE_STALE | STATE_CLOSING | STATE_REPLIED | STATE_CONFIRMED | STATE_CLAIMED;
    fn unharmed<A: Modelled>(tables: &ModelTables) -> bool {
        let is_strangers =
            |key: &FlowKey<A>| is_stranger(key.source) || is_stranger(key.destination);
        let flows = A::of(tables).flows.borrow();
        let mut strangers = flows.iter().filter(|(key, _)| is_strangers(key));
        strangers.all(|(_, flow)| {
            let number = flow.number_now();
            // Towards the client it is that of the flow's place among the half-open ones.
            let is_right = if flow.direction_now() == DIRECTION_TO_CLIENT {
                has_strangers_place::<V4>(tables, number)
                    || has_strangers_place::<V6>(tables, number)
            } else {
                number == 0
            };
            flow.state_now() & SAID == 0 && is_right
        })
    }
    unharmed::<V4>(tables) && unharmed::<V6>(tables)
}

fn is_stranger<A: Family>(address: A) -> bool {
    [STRANGER_V4, STRANGER_V6].contains(&address.to_v6())
}

/// Whether a number is that of a place which a stranger's flow has among a family's half-open ones.
fn has_strangers_place<A: Modelled>(tables: &ModelTables, number: u32) -> bool {
    let family = A::of(tables);
    let since = family.begun.get().wrapping_sub(number) as usize;
    let places = family.half_open.borrow();
    places.iter().rev().nth(since).is_some_and(|place| is_stranger(place.source))
}

const STRANGER_V4: V6 = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 1, 0, 9])];
const STRANGER_V6: V6 = [0x2001_0db8_u32.to_be(), 0x0001_0000_u32.to_be(), 0, 9_u32.to_be()];
