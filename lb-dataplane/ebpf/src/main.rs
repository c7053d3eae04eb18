//! The XDP and TC programs of lbd: one pipeline, two hooks of two programs each, and those that remove idle flows.

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
mod frame;
mod half_open;
mod interfaces;
mod maps;
mod numbers;
mod punts;
mod record;
mod rounds;
mod samples;
mod sum;
mod tc;
mod xdp;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, xdp_action};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::packet::Packet;
use lb_dataplane_common::pipeline;
use lb_dataplane_common::reason::Kind;

use crate::maps::Maps;
use crate::tc::SkBuff;
use crate::xdp::XdpFrame;

/// Leaves the packet to the next program of the hook, or to the kernel's stack (`TCX_NEXT`).
const TCX_NEXT: i32 = -1;

/// Where packets go on that `lbd_tc` does not send itself: `lbd_tc_long`, which the loader puts there.
#[map]
static TC_LONG: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The same of XDP.
#[map]
static XDP_LONG: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// At TC (tcx) ingress: established flows by the short way, all else by `lbd_tc_long`.
#[classifier]
#[inline(always)]
pub fn lbd_tc(ctx: TcContext) -> i32 {
    let mut packet = SkBuff::new(ctx.skb.skb);
    if let Some(outcome) = pipeline::forward_established(&mut packet, &Maps) {
        record::record(&outcome);
        return match outcome.reason.kind_at_once() {
            Kind::Forward if outcome.way.resolve == 0 => tc::redirect(outcome.way.ifindex),
            // Nobody's MAC is to be found on the short way.
            Kind::Forward => tc::redirect_to_peer(outcome.way.ifindex),
            Kind::Pass | Kind::Reply | Kind::Drop => TC_ACT_SHOT,
        };
    }
    // SAFETY: nothing is left to be dropped. A constant index, as the kernel makes a jump of the call then.
    unsafe { TC_LONG.tail_call(&ctx, 0) };
    record::record(&pipeline::end_without_long_way(&packet, &Maps));
    TC_ACT_SHOT
}

/// At XDP: established flows by the short way, all else by `lbd_xdp_long`.
#[xdp]
#[inline(always)]
pub fn lbd_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    if let Some(outcome) = pipeline::forward_established(&mut packet, &Maps) {
        record::record(&outcome);
        return match outcome.reason.kind_at_once() {
            Kind::Forward => xdp::redirect(outcome.way.ifindex),
            Kind::Pass | Kind::Reply | Kind::Drop => xdp_action::XDP_DROP,
        };
    }
    // SAFETY: as above.
    unsafe { XDP_LONG.tail_call(&ctx, 0) };
    record::record(&pipeline::end_without_long_way(&packet, &Maps));
    xdp_action::XDP_DROP
}

/// The pipeline at TC (tcx) ingress. Never attached: `lbd_tc` leads here.
#[classifier]
pub fn lbd_tc_long(ctx: TcContext) -> i32 {
    let skb: *mut __sk_buff = ctx.skb.skb;
    let mut packet = SkBuff::new(skb);
    let outcome = pipeline::process(&mut packet, &Maps);
    record::record(&outcome);
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

/// The pipeline at XDP. Never attached: `lbd_xdp` leads here.
#[xdp]
pub fn lbd_xdp_long(ctx: XdpContext) -> u32 {
    let mut packet = XdpFrame::new(ctx.ctx);
    let outcome = pipeline::process(&mut packet, &Maps);
    record::record(&outcome);
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
