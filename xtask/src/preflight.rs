//! What the kernel and the user must allow, asked before anything is built: one sentence with the remedy, or go on.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

/// tcx links (attach to TC by `BPF_LINK_CREATE`) are there since this version.
const OLDEST_KERNEL: (u32, u32) = (6, 6);

/// Stops where the lab or the packet tests cannot run.
pub(crate) fn check() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("this needs Linux: run it in a Linux virtual machine");
    }
    if !is_root()? {
        bail!(
            "this needs root, to load eBPF programs and make network namespaces: run it again with `sudo -E env PATH=$PATH`"
        );
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (major, minor) = kernel_version(&release);
    if (major, minor) < OLDEST_KERNEL {
        bail!(
            "kernel {} is too old for TC links: boot {}.{} or later",
            release.trim(),
            OLDEST_KERNEL.0,
            OLDEST_KERNEL.1
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no BTF: boot one that is built with CONFIG_DEBUG_INFO_BTF=y");
    }
    if !fs::read_to_string("/proc/filesystems")?.lines().any(|line| line.ends_with("\tbpf")) {
        bail!("this kernel has no bpffs: boot one that is built with CONFIG_BPF_SYSCALL=y");
    }
    if !Path::new("/proc/self/ns/net").exists() {
        bail!("this kernel has no network namespaces: boot one that is built with CONFIG_NET_NS=y");
    }
    Ok(())
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective =
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    Ok(effective == Some("0"))
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_from_release_strings() {
        assert_eq!(kernel_version("6.18.44-fc-v595\n"), (6, 18));
        assert_eq!(kernel_version("6.6.0"), (6, 6));
        assert_eq!(kernel_version("5.15.0-91-generic"), (5, 15));
        assert_eq!(kernel_version("garbage"), (0, 0));
    }
}
