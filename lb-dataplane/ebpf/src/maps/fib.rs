//! The FIB as the pipeline asks for it.

use lb_dataplane_common::fib::{FibTables, MemberEntry};
use lb_dataplane_common::fib6::Fib6Tables;

use super::Maps;
use crate::fib_maps::{Fib, Node6};

impl FibTables for Maps {
    #[inline(always)]
    fn l1(&self, index: u32) -> Option<u32> {
        Fib.l1(index)
    }

    #[inline(always)]
    fn l2(&self, index: u32) -> Option<u32> {
        Fib.l2(index)
    }

    #[inline(always)]
    fn group(&self, index: u32) -> Option<u64> {
        Fib.group(index)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<u32> {
        Fib.bucket(index)
    }

    #[inline(always)]
    fn member(&self, index: u32) -> Option<MemberEntry> {
        Fib.member(index)
    }
}

impl Fib6Tables for Maps {
    type Node = Node6;

    #[inline(always)]
    fn root6(&self, index: u32) -> Option<u64> {
        Fib.root6(index)
    }

    #[inline(always)]
    fn shortcuts6(&self, first: u32) -> Option<[u64; 4]> {
        Fib.shortcuts6(first)
    }

    #[inline(always)]
    fn node6(&self, unit: u32) -> Option<Node6> {
        Fib.node6(unit)
    }

    #[inline(always)]
    fn word6(&self, node: Node6, index: u32) -> u64 {
        Fib.word6(node, index)
    }
}
