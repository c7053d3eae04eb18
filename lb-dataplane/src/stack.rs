//! How much of the verifier's stack the programs take: 512 bytes for a whole chain of calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use crate::layout::OBJECT;

/// What a chain may take: some is left for what is to come.
const BOUND: usize = 480;
/// The kernel gives a function multiples of so many bytes; since 6.8 of 16 where it compiles.
const UNIT: usize = 32;
/// The register that holds the end of a function's stack.
const FRAME: u8 = 10;

const CALL: u8 = 0x85;
const LOAD_WIDE: u8 = 0x18;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// In the place of a register: what is called, or loaded, is a function of the program.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;

/// The function that an instruction calls, or hands on to be called.
fn called(at: usize, insn: &bpf_insn) -> Option<usize> {
    let is_function =
        matches!((insn.code, insn.src_reg()), (CALL, PSEUDO_CALL) | (LOAD_WIDE, PSEUDO_FUNC));
    is_function.then(|| at.strict_add_signed(insn.imm as isize + 1))
}

/// Bytes of the stack that a function itself takes.
fn own(insns: &[bpf_insn]) -> usize {
    let mut bytes = 0;
    let mut below = |offset: i32| bytes = bytes.max(offset.min(0).unsigned_abs() as usize);
    let mut copies = BTreeSet::new();
    for insn in insns {
        // Classes of loads and stores.
        let (loads, stores) = (insn.code & 7 == 1, matches!(insn.code & 7, 2 | 3));
        if loads && insn.src_reg() == FRAME || stores && insn.dst_reg() == FRAME {
            below(insn.off.into());
        }
        match insn.code {
            MOVE if insn.src_reg() == FRAME => _ = copies.insert(insn.dst_reg()),
            ADD if copies.contains(&insn.dst_reg()) => below(insn.imm),
            _ => {}
        }
        // An address in the stack is made of the end by one addition, and that at once.
        if insn.code != MOVE {
            copies.remove(&insn.dst_reg());
        }
    }
    bytes
}

/// Bytes that the chains take which begin at a function.
fn chain(at: usize, functions: &BTreeMap<usize, (usize, BTreeSet<usize>)>) -> usize {
    let (own, called) = &functions[&at];
    let deepest = called.iter().map(|at| chain(*at, functions)).max().unwrap_or(0);
    own.max(&1).next_multiple_of(UNIT) + deepest
}

/// By program.
fn stacks() -> BTreeMap<String, usize> {
    let mut object = Object::parse(OBJECT).unwrap();
    let texts: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&texts).unwrap();
    let of = |program: &aya_obj::Program| {
        let insns = &object.functions[&program.function_key()].instructions;
        let calls: Vec<_> = insns
            .iter()
            .enumerate()
            .filter_map(|(at, insn)| Some((at, called(at, insn)?)))
            .collect();
        let begins: BTreeSet<usize> = calls.iter().map(|(_, to)| *to).chain([0]).collect();
        let ends = begins.iter().copied().skip(1).chain([insns.len()]);
        let functions = begins.iter().copied().zip(ends).map(|(begin, end)| {
            let within = begin..end;
            let called = calls.iter().filter(|(at, _)| within.contains(at)).map(|(_, to)| *to);
            (begin, (own(&insns[within.clone()]), called.collect()))
        });
        chain(0, &functions.collect())
    };
    object.programs.iter().map(|(name, program)| (name.clone(), of(program))).collect()
}

#[test]
fn every_programs_chains_of_calls_leave_room_on_the_stack() {
    let stacks = stacks();
    assert_eq!(stacks.len(), 10, "{stacks:?}");
    println!("{stacks:?}");
    for (name, bytes) in stacks {
        assert!(bytes > 100, "{name}: {bytes}: is this what it takes?");
        assert!(bytes <= BOUND, "{name}: {bytes} bytes of 512");
    }
}
