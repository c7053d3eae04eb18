//! What becomes of a flow whose port another one wants while its own sides go on.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::family::V6;
use crate::flow::{STATE_GOING, STATE_REPLIED};
use crate::model::memory;
use crate::reason::Kind;

/// More steps than the stranger's first packet has, reads of entries included.
const MAX_STEPS: usize = 2000;

#[test]
fn a_flow_that_goes_on_while_its_port_is_wanted_keeps_it() {
    let cases = [
        (HALF_OPEN, seconds(60), Act::Stranger(SYN), Act::Client(ACK)),
        (&[Act::Client(SYN)], seconds(60), Act::Stranger(SYN), Act::Backend(1, SYN_ACK)),
        (&[Act::Client(UDP)], seconds(120), Act::Stranger(UDP), Act::Backend(1, UDP)),
    ];
    for (acts, ticks, stranger, goes_on) in cases {
        // Each held up at all of its steps by the other one.
        for [held, comes_in] in [[stranger, goes_on], [goes_on, stranger]] {
            let (mut kept, mut taken) = (0, 0);
            for steps in 0..MAX_STEPS {
                let tables = Rc::new(before_across((acts, ticks + 1, &[]), 1));
                let ended = Rc::new(Cell::new(None));
                let (other_cpu, ends) = (Rc::clone(&tables), Rc::clone(&ended));
                memory::after(steps, move || ends.set(comes_in.run(&other_cpu)));
                let of_held = held.run(&tables);
                if memory::finish() {
                    break;
                }
                let sent = if held == goes_on { of_held } else { ended.take() };
                let (reason, frame) = sent.expect("a packet");
                // Once the port is the stranger's, so is what the backend sends there.
                let is_strangers = matches!(goes_on, Act::Backend(..)) && frame[53] != 1;
                if reason.kind() != Kind::Forward || is_strangers {
                    taken += 1;
                    continue;
                }
                let is_clients = |key: &FlowKey<V6>| key.source == CLIENT_ADDRESS;
                assert!(
                    tables.keys6().iter().any(is_clients),
                    "{goes_on:?} was forwarded, its flow is gone: {comes_in:?} at step {steps}"
                );
                kept += 1;
            }
            assert!(kept > 0 && taken > 0, "{goes_on:?}: kept {kept} times, taken {taken} times");
        }
    }
}

/// What a packet says goes into one entry and then into the other.
#[test]
fn a_flow_is_not_taken_while_one_of_its_entries_says_that_it_goes_on() {
    let towards = |key: &FlowKey<V6>| key.source == CLIENT_ADDRESS;
    for (acts, bit, is_backends) in
        [(HALF_OPEN, STATE_CONFIRMED, false), (&HALF_OPEN[..1], STATE_REPLIED, true)]
    {
        let mut kept = 0;
        for (steps, gap) in (0..MAX_STEPS).flat_map(|steps| (0..12).map(move |gap| (steps, gap))) {
            let tables = Rc::new(before_across((acts, seconds(60) + 1, &[]), 1));
            let key6 = *tables.keys6().iter().find(|key| towards(key)).expect("it is there");
            let there = FamilyTables::<V6>::flow(&*tables, &key6).expect("it is there");
            let back = peer::find(&*tables, &key6, &there).expect("it is there");
            let (first, second) = if is_backends { (back, there) } else { (there, back) };
            let now = tables.clock.get();
            let told = Rc::new(Cell::new(None));
            let tells = Rc::clone(&told);
            memory::after(steps, move || {
                first.touch(now);
                tells.set(Some(first.set_state(bit)));
            });
            memory::after(steps + gap, move || {
                second.set_state(bit);
            });
            Act::Stranger(SYN).run(&tables);
            let Some(before) = told.get() else {
                memory::finish();
                break;
            };
            memory::finish();
            if before & STATE_GOING == 0 {
                let is_there = tables.keys6().iter().any(towards);
                assert!(is_there, "{bit}: it went on at step {steps}, told {gap} steps later");
                kept += 1;
            }
        }
        assert!(kept > 0);
    }
}

/// The client's in the world across.
const CLIENT_ADDRESS: V6 = [0x2001_0db8_u32.to_be(), 0x0001_0000_u32.to_be(), 0, 1_u32.to_be()];
