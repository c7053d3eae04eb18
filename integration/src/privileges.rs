//! What a daemon may, as the kernel says it of each of its threads.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF, by their numbers in `linux/capability.h`.
const KEPT: [u8; 5] = [10, 12, 13, 38, 39];

/// Whether every thread runs as this user, with five capabilities at most, for good, and behind a filter of system calls.
pub(crate) fn are_given_up(pid: i32, uid: u32) -> Result<()> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut threads = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("{} is gone", tasks.display()))? {
        // A thread may end while this is read.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        check(&status, uid)?;
        threads += 1;
    }
    ensure!(threads > 0, "process {pid} has no threads");
    Ok(())
}

fn check(status: &str, uid: u32) -> Result<()> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    let ids = [uid; 4].map(|id| id.to_string());
    for name in ["Uid", "Gid"] {
        let found: Vec<&str> = field(name)?.split_whitespace().collect();
        ensure!(found == ids, "{name} is {found:?}, not {ids:?}");
    }
    ensure!(field("Groups")?.is_empty(), "it has the groups {}", field("Groups")?);
    let kept = KEPT.iter().fold(0_u64, |bits, number| bits | 1 << number);
    for (name, expected) in
        [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapBnd", kept), ("CapAmb", 0)]
    {
        let bits = u64::from_str_radix(field(name)?, 16).context(name)?;
        ensure!(bits == expected, "{name} is {bits:x}, not {expected:x}");
    }
    ensure!(field("NoNewPrivs")? == "1", "it may have new privileges");
    ensure!(field("Seccomp")? == "2", "no filter of system calls holds it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_more_is_found() {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(check(&own, 64_179).is_err(), "these tests run as root");
        let well = "Uid:\t7 7 7 7\nGid:\t7 7 7 7\nGroups:\t\nCapInh:\t0\nCapPrm:\tc000003400\nCapEff:\tc000003400\n\
                    CapBnd:\tc000003400\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        check(well, 7).unwrap();
        for (good, bad) in [
            ("Uid:\t7 7 7", "Uid:\t7 0 7"),
            ("Groups:\t", "Groups:\t0"),
            ("CapEff:\tc000003400", "CapEff:\tc000203400"),
            ("CapBnd:\tc000003400", "CapBnd:\tffffffffff"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            assert!(check(&well.replace(good, bad), 7).is_err(), "{bad}");
        }
    }
}
