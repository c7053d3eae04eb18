//! Where another CPU may come in, and what is there then.

use std::cell::Cell;

use super::{ModelTables, memory};
use crate::family::{V4, V6};
use crate::flow::FlowKey;

impl ModelTables {
    /// Between two steps, where another CPU may come in.
    pub(super) fn step(&self) {
        memory::step();
        let due = {
            let mut slot = self.interruption.borrow_mut();
            match slot.take() {
                Some((0, act)) => Some(act),
                Some((steps, act)) => {
                    *slot = Some((steps - 1, act));
                    None
                }
                None => None,
            }
        };
        if let Some(act) = due {
            self.is_other_cpu.set(true);
            act(self);
            self.is_other_cpu.set(false);
        }
    }

    /// Whether this CPU meets another one that is at it, of so many times.
    pub(super) fn meets(&self, times: &Cell<u32>) -> bool {
        let is_met = times.get() > 0 && !self.is_other_cpu.get();
        times.update(|times| times - u32::from(is_met));
        is_met
    }

    pub(crate) fn keys(&self) -> Vec<FlowKey<V4>> {
        let mut keys: Vec<FlowKey<V4>> = self.v4.flows.borrow().keys().copied().collect();
        keys.sort();
        keys
    }

    pub(crate) fn keys6(&self) -> Vec<FlowKey<V6>> {
        let mut keys: Vec<FlowKey<V6>> = self.v6.flows.borrow().keys().copied().collect();
        keys.sort();
        keys
    }
}
