//! The programs that remove idle flows, over the keys that user space hands in as a frame.

use core::ffi::{c_long, c_void};

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use lb_dataplane_common::age::{self, Pass, Reset};
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::FlowKey;
use lb_dataplane_common::packet::Packet as _;
use lb_dataplane_common::tables::TablesOf;

use crate::maps::Maps;
use crate::xdp::XdpFrame;

/// What the rounds share.
struct Rounds {
    ctx: *mut xdp_md,
    pass: u32,
    done: u32,
}

/// A key of `WORDS` words.
pub trait Key<const WORDS: usize>: Family {
    /// From the frame's words.
    fn key(words: [u16; WORDS]) -> FlowKey<Self>;
}

impl Key<8> for V4 {
    #[inline(always)]
    fn key(words: [u16; 8]) -> FlowKey<Self> {
        FlowKey::<Self>::from_words(words)
    }
}

impl Key<20> for V6 {
    #[inline(always)]
    fn key(words: [u16; 20]) -> FlowKey<Self> {
        FlowKey::<Self>::from_words(words)
    }
}

/// One pass over every key; how many it marked or removed. The rounds are the kernel's own loop, which its verifier reads
/// once: written out they are sixty-four times as much, and by what each of them did many times that.
#[inline(always)]
pub fn run<A: Key<WORDS>, const WORDS: usize>(ctx: *mut xdp_md) -> u32
where
    Maps: TablesOf<A>,
{
    let Some([pass]) = XdpFrame::new(ctx).get::<1>(age::PASS_AT) else { return 0 };
    let mut rounds = Rounds { ctx, pass: pass.into(), done: 0 };
    let round: extern "C" fn(u32, *mut Rounds) -> c_long = round::<A, WORDS>;
    // SAFETY: the kernel hands these rounds to each call, and makes none after this one.
    unsafe {
        bpf_loop(age::MAX_KEYS, round as *mut c_void, (&raw mut rounds).cast(), 0);
    }
    rounds.done
}

/// One pass over one key; not zero ends the loop.
extern "C" fn round<A: Key<WORDS>, const WORDS: usize>(n: u32, rounds: *mut Rounds) -> c_long
where
    Maps: TablesOf<A>,
{
    // SAFETY: `run` has them until the loop is over.
    let rounds = unsafe { &mut *rounds };
    let mut frame = XdpFrame::new(rounds.ctx);
    let Some(pass) = Pass::from_word(rounds.pass as u16) else { return 1 };
    // The verifier knows no more of a round than that it is a number.
    let at = age::KEYS_AT + n % age::MAX_KEYS * (2 * WORDS as u32);
    let Some(words) = frame.get::<WORDS>(at) else { return 1 };
    let mut reset = Reset { is_due: 0, to_client: 0, to_backend: 0 };
    rounds.done += u32::from(age::run(&Maps, pass, &A::key(words), &mut reset));
    // The key's place is free to say what its flow's sides are to hear.
    let _always_there = frame.write(at, reset.to_words());
    0
}
