//! A mount namespace of the tests' own: of a process that is killed, no bpffs is left, nor the maps that are pinned there.

#![expect(unsafe_code, reason = "a function that runs before `main` is named in a section")]

use std::fs;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Before there are threads: each would be alone with its mounts otherwise.
// SAFETY: of what the section names each is called once, by the loader; this function asks nothing of what is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = leave_mounts;

/// Who may not will fail in its tests, which say why.
extern "C" fn leave_mounts() {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        let (of_nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        let _ = mount(of_nothing, "/", of_nothing, private, of_nothing);
    }
}

#[test]
fn what_is_mounted_here_is_mounted_nowhere_else() {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    let parent = nix::unistd::getppid().to_string();
    assert_ne!(namespace("thread-self"), namespace(&parent));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" shared:"), "{mounts}");
}
