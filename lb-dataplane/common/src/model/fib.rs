//! A FIB that sends everything out through one member.

use super::ModelTables;
use crate::fib::{FibTables, L1_CHUNK, MemberEntry, NO_GROUP, group_member};
use crate::fib6::Fib6Tables;

impl FibTables for ModelTables {
    fn l1(&self, index: u32) -> Option<u32> {
        // 203.0.113.0/24 has no route.
        Some(if index == 0x00cb_0071 { NO_GROUP } else { 1 & !L1_CHUNK })
    }
    fn l2(&self, _: u32) -> Option<u32> {
        None
    }
    fn group(&self, _: u32) -> Option<u64> {
        Some(self.group.unwrap_or(group_member(0)))
    }
    fn bucket(&self, _: u32) -> Option<u32> {
        None
    }
    fn member(&self, _: u32) -> Option<MemberEntry> {
        Some(self.member)
    }
}

impl Fib6Tables for ModelTables {
    type Node = ();

    fn shortcuts6(&self, _: u32) -> Option<[u64; 4]> {
        Some([0; 4])
    }

    fn root6(&self, _: u32) -> Option<u64> {
        Some(1)
    }
    fn node6(&self, _: u32) -> Option<()> {
        None
    }
    fn word6(&self, (): (), _: u32) -> u64 {
        0
    }
}
