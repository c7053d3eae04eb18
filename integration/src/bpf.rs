//! What the kernel says is attached to an interface, asked without the daemon.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper among our dependencies")]

use anyhow::{Context, Result};
use lb_api_types::config::Hook;
use serde_json::Value;

use crate::lab::Lab;

/// `BPF_PROG_QUERY` of bpf(2).
const PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
/// `XDP_ATTACHED_DRV`: the driver's own hook, not the generic one.
const XDP_NATIVE: u64 = 1;

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The hooks at which programs are attached to a node's interface; XDP counts only in native mode.
pub fn attached(lab: &Lab, node: &str, interface: &str) -> Result<Vec<Hook>> {
    let text = lab.run(node, &format!("ip -j -d link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&text)?;
    let link = &links[0];
    let mut hooks = Vec::new();
    if !link["xdp"].is_null() {
        anyhow::ensure!(
            link["xdp"]["mode"].as_u64() == Some(XDP_NATIVE),
            "XDP on {interface} is not native: {}",
            link["xdp"]
        );
        hooks.push(Hook::Xdp);
    }
    let index = link["ifindex"].as_u64().context("the link has no index")?;
    let index = u32::try_from(index)?;
    if lab.netns(node)?.within(|| tcx_programs(index))?? > 0 {
        hooks.push(Hook::Tc);
    }
    Ok(hooks)
}

fn tcx_programs(index: u32) -> Result<u32> {
    let mut query = Query { target_ifindex: index, attach_type: TCX_INGRESS, ..Query::default() };
    // SAFETY: the pointer and the size name `query`, which outlives the call; with `prog_ids` 0 and `count` 0 the kernel
    // writes nothing but the number of programs into it.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot ask for programs at tcx");
    }
    Ok(query.count)
}
