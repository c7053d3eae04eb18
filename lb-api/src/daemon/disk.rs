//! Looks after the state folder: whether what was found not well there still is, and whether it can be written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use tokio::time::{MissedTickBehavior, interval};

use crate::access::Access;
use crate::alarms::{Alarms, Part};
use crate::store::Notice;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes that have to be free: a change has mostly less.
const ROOM: u64 = 1 << 20;

/// What is looked after.
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    /// What was found at the start.
    pub(super) notices: Vec<Notice>,
    pub(super) access: Arc<Access>,
    pub(super) alarms: Alarms,
}

impl Disk {
    /// Says what is not well, now and until the daemon ends.
    pub(super) fn spawn(self) {
        self.look();
        tokio::spawn(async move {
            let disk = Arc::new(self);
            let mut tick = interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let disk = Arc::clone(&disk);
                if tokio::task::spawn_blocking(move || disk.look()).await.is_err() {
                    return;
                }
            }
        });
    }

    fn look(&self) {
        let hold = self.notices.iter().filter(|notice| notice.holds());
        let found = hold.map(|notice| notice.said().to_owned());
        self.alarms.set(Part::State, found.chain(refuses(&self.folder)).collect());
        self.alarms.set(Part::Access, self.access.unwell());
    }
}

/// Why a folder takes no changes, if it does not.
fn refuses(folder: &Path) -> Option<String> {
    let (name, how) = (folder.display(), "what is kept is served, and changes are refused");
    if let Err(error) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        return Some(format!("{name} cannot be written ({}): {how} until it can", error.desc()));
    }
    let found = statvfs(folder).ok()?;
    let free = found.blocks_available() * found.fragment_size();
    let is_full = found.blocks() > 0 && free < ROOM;
    is_full.then(|| format!("the disk of {name} is full: {how} until there is room"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::mount::MsFlags;

    use super::*;
    use crate::events::Events;
    use crate::small_disk::{on_a_small_disk, remount};
    use crate::store::Store;

    #[test]
    fn a_disk_that_is_full_read_only_or_has_damage_on_it_is_said_until_it_is_well() {
        on_a_small_disk("4m", |folder| {
            fs::write(folder.join("vips.json"), "damage").unwrap();
            let notices = Store::open(folder).unwrap().load().unwrap().notices;
            // Elsewhere, since what is open to be written keeps the disk from being read only.
            let logs = tempfile::tempdir().unwrap();
            let access = Arc::new(Access::open(logs.path(), Default::default(), 0).unwrap());
            let alarms = Alarms::new(Events::default());
            let disk = Disk { folder: folder.to_owned(), notices, access, alarms };
            let said = || {
                disk.look();
                disk.alarms.all().join("\n")
            };
            assert!(said().contains("damaged"), "{}", said());
            fs::remove_file(folder.join("vips.json.damaged-1")).unwrap();
            assert_eq!(said(), "");
            let _full = fs::write(folder.join("rest"), vec![0; 8 << 20]);
            assert!(said().contains("is full"), "{}", said());
            fs::remove_file(folder.join("rest")).unwrap();
            assert_eq!(said(), "");
            remount(folder, MsFlags::MS_RDONLY);
            assert!(said().contains("Read-only file system"), "{}", said());
            remount(folder, MsFlags::empty());
            assert_eq!(said(), "");
        });
    }
}
