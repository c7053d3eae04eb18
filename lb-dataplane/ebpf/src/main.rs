//! The XDP and TC programs of lbd: one pipeline, two hooks of several programs each, and those that remove idle flows.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod ageing;
mod alone;
mod apart;
mod atomic;
mod clients;
mod clock;
mod counts;
mod early;
mod fib_maps;
mod flow_ptr;
mod flow_table;
mod frame;
mod half_open;
mod interfaces;
mod lines;
mod maps;
mod next;
mod numbers;
mod punts;
mod record;
mod rounds;
mod samples;
mod sum;
mod tc;
mod xdp;

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, xdp_action};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::pipeline::{self, Outcome};
use lb_dataplane_common::reason::Kind;

use crate::maps::Maps;
use crate::tc::SkBuff;
use crate::xdp::XdpFrame;

/// Leaves the packet to the next program of the hook, or to the kernel's stack (`TCX_NEXT`).
const TCX_NEXT: i32 = -1;

/// Where packets go on that a program at TC does not end: `lbd_tc_find`, and `lbd_tc_begin` or
/// `lbd_tc_begin6`, which the loader puts there.
#[map]
static TC_NEXT: ProgramArray = ProgramArray::with_max_entries(3, 0);
/// The same of XDP.
#[map]
static XDP_NEXT: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// At TC (tcx) ingress: established flows by the short way, all else by `lbd_tc_find` or `lbd_tc_begin`.
#[classifier]
#[inline(always)]
pub fn lbd_tc(ctx: TcContext) -> i32 {
    let mut packet = SkBuff::new(ctx.skb.skb);
    let next = match pipeline::forward_established(&mut packet, &Maps) {
        Ok(outcome) => {
            record::record(&outcome);
            return match outcome.reason.kind_at_once() {
                Kind::Forward if outcome.way.resolve == 0 => tc::redirect(outcome.way.ifindex),
                // Nobody's MAC is to be found on the short way.
                Kind::Forward => tc::redirect_to_peer(outcome.way.ifindex),
                Kind::Pass | Kind::Reply | Kind::Drop => TC_ACT_SHOT,
            };
        }
        Err(next) => next,
    };
    next::go_on(&ctx, &TC_NEXT, next);
    record::record(&pipeline::end_without_next(&packet, &Maps));
    TC_ACT_SHOT
}

/// At XDP: established flows by the short way, all else by `lbd_xdp_find` or `lbd_xdp_begin`.
#[xdp]
#[inline(always)]
pub fn lbd_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    let next = match pipeline::forward_established(&mut packet, &Maps) {
        Ok(outcome) => {
            record::record(&outcome);
            return match outcome.reason.kind_at_once() {
                Kind::Forward => xdp::redirect(outcome.way.ifindex),
                Kind::Pass | Kind::Reply | Kind::Drop => xdp_action::XDP_DROP,
            };
        }
        Err(next) => next,
    };
    next::go_on(&ctx, &XDP_NEXT, next);
    record::record(&pipeline::end_without_next(&packet, &Maps));
    xdp_action::XDP_DROP
}

/// At TC, the flow of whatever packet is found. Never attached: `lbd_tc` leads here.
#[classifier]
pub fn lbd_tc_find(ctx: TcContext) -> i32 {
    let mut packet = SkBuff::new(ctx.skb.skb);
    let next = match pipeline::forward_found(&mut packet, &Maps) {
        Ok(outcome) => return end_at_tc(&packet, &outcome),
        Err(next) => next,
    };
    next::go_on(&ctx, &TC_NEXT, next);
    record::record(&pipeline::end_without_next(&packet, &Maps));
    TC_ACT_SHOT
}

/// The same at XDP. Never attached: `lbd_xdp` leads here.
#[xdp]
pub fn lbd_xdp_find(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    let next = match pipeline::forward_found(&mut packet, &Maps) {
        Ok(outcome) => return end_at_xdp(&packet, &outcome),
        Err(next) => next,
    };
    next::go_on(&ctx, &XDP_NEXT, next);
    record::record(&pipeline::end_without_next(&packet, &Maps));
    xdp_action::XDP_DROP
}

/// IPv4 packets at TC that have no flow begin one, or are routed. Never attached: the two others lead here.
#[classifier]
pub fn lbd_tc_begin(ctx: TcContext) -> i32 {
    let mut packet = SkBuff::new(ctx.skb.skb);
    let outcome = pipeline::begin::<V4, _, _>(&mut packet, &Maps);
    end_at_tc(&packet, &outcome)
}

/// The same of IPv6.
#[classifier]
pub fn lbd_tc_begin6(ctx: TcContext) -> i32 {
    let mut packet = SkBuff::new(ctx.skb.skb);
    let outcome = pipeline::begin::<V6, _, _>(&mut packet, &Maps);
    end_at_tc(&packet, &outcome)
}

/// The same at XDP. Never attached: the two others lead here.
#[xdp]
pub fn lbd_xdp_begin(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    let outcome = pipeline::begin::<V4, _, _>(&mut packet, &Maps);
    end_at_xdp(&packet, &outcome)
}

/// The same of IPv6.
#[xdp]
pub fn lbd_xdp_begin6(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    let outcome = pipeline::begin::<V6, _, _>(&mut packet, &Maps);
    end_at_xdp(&packet, &outcome)
}

/// Has the kernel do what became of a packet at TC.
#[inline(always)]
fn end_at_tc(packet: &SkBuff, outcome: &Outcome) -> i32 {
    record::record(outcome);
    match outcome.reason.kind_at_once() {
        Kind::Forward if outcome.way.resolve == 0 => tc::redirect(outcome.way.ifindex),
        Kind::Forward if outcome.way.resolve == pipeline::TO_PEER => {
            tc::redirect_to_peer(outcome.way.ifindex)
        }
        Kind::Forward => tc::redirect_neighbour(&outcome.way),
        Kind::Reply => tc::redirect(packet.link()),
        Kind::Pass => TCX_NEXT,
        Kind::Drop => TC_ACT_SHOT,
    }
}

/// The same at XDP.
#[inline(always)]
fn end_at_xdp(packet: &XdpFrame, outcome: &Outcome) -> u32 {
    record::record(outcome);
    match outcome.reason.kind_at_once() {
        Kind::Forward => xdp::redirect(outcome.way.ifindex),
        // Not `XDP_TX`: a veth leaves such a frame in its peer's ring until another one comes, unless the peer runs XDP
        // too. Forwarding asks the same of a driver.
        Kind::Reply => xdp::redirect(packet.link()),
        Kind::Pass => xdp_action::XDP_PASS,
        Kind::Drop => xdp_action::XDP_DROP,
    }
}

/// One pass over the flow keys that user space hands in as a frame; returns how many it marked or removed, and leaves in each
/// key's place whether its flow's sides are to hear a RST. Runs by
/// `BPF_PROG_TEST_RUN` only, never attached.
#[xdp]
pub fn lbd_age(ctx: XdpContext) -> u32 {
    ageing::run::<V4, 8>(ctx.ctx)
}

/// The same over flow keys of IPv6.
#[xdp]
pub fn lbd_age6(ctx: XdpContext) -> u32 {
    ageing::run::<V6, 20>(ctx.ctx)
}

const _: () = assert!(TC_ACT_REDIRECT == 7, "what bpf_redirect returns at TC");

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
