//! From one program of a hook to another.

use core::arch::asm;

use aya_ebpf::EbpfContext;
use aya_ebpf::maps::ProgramArray;
use lb_dataplane_common::pipeline::Next;

/// Calls `bpf_tail_call` with a constant index, of which the kernel makes a jump. The compiler would make one call with any index of
/// several.
macro_rules! jump {
    ($ctx:expr, $programs:expr, $index:literal) => {
        // SAFETY: the helper gets what it asks for; whoever goes on elsewhere has nothing left to be dropped.
        unsafe {
            asm!(
                "r3 = {index}",
                "call 12",
                index = const $index,
                out("r0") _,
                inout("r1") $ctx => _,
                inout("r2") $programs => _,
                out("r3") _,
                out("r4") _,
                out("r5") _,
            );
        }
    };
}

/// Has a packet go on in another program of its hook. Comes back only where that is not there.
#[inline(always)]
pub fn go_on<C: EbpfContext>(ctx: &C, programs: &'static ProgramArray, next: Next) {
    let (ctx, programs) = (ctx.as_ptr(), core::ptr::from_ref(programs));
    match next {
        Next::Find => jump!(ctx, programs, 0),
        Next::Begin => jump!(ctx, programs, 1),
        Next::Begin6 => jump!(ctx, programs, 2),
    }
}
