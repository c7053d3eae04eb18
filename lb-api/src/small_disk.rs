//! Disks for tests that fill them or take their leave to be written away.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Acts on a small disk of its own, of so many bytes (`384k`).
pub(crate) fn on_a_small_disk(size: &'static str, act: impl FnOnce(&Path) + Send + 'static) {
    // A mount namespace belongs to a thread.
    let alone = std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).expect("root runs the tests");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let (tmpfs, size) = (Some("tmpfs"), format!("size={size}"));
        mount(tmpfs, folder.path(), tmpfs, MsFlags::empty(), Some(size.as_str())).unwrap();
        act(folder.path());
    });
    alone.join().unwrap();
}

/// Has it be read only, or not any more.
pub(crate) fn remount(folder: &Path, flags: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | flags;
    mount(None::<&str>, folder, None::<&str>, flags, None::<&str>).unwrap();
}
