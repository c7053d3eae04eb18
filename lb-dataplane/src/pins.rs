//! The folder on a bpffs where everything is pinned.
//!
//! ```text
//! <pin_dir>/links/<ifindex>-<hook>       attachments, whichever layout their program has
//! <pin_dir>/tags/<ifindex>-<feature>     what devices do no longer while a program is attached: a folder each
//! <pin_dir>/<layout>/maps/<map>
//! <pin_dir>/<layout>/programs/<build>/<program>
//! <pin_dir>/<layout>/arrays/<build>/<program>     where that one leads on to: an array that the kernel empties without its pin
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::error::OpenError;
use crate::layout;
use crate::sys::links;

/// Has a bpffs at a folder, which is made if it is not there; whether this process mounted it. A process that gives up
/// the right to mount does this before.
///
/// # Errors
///
/// The folder cannot be made, or the kernel refuses.
pub fn mount_bpffs(root: &Path) -> Result<bool, OpenError> {
    let pin_error = |source| OpenError::Pin { path: root.to_owned(), source };
    fs::create_dir_all(root).map_err(pin_error)?;
    let mounted = !is_bpffs(root);
    if mounted {
        mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| OpenError::Mount { path: root.to_owned(), source: e.into() })?;
    }
    Ok(mounted)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// Paths of pins.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    layout: PathBuf,
    /// Whether this process mounted the bpffs.
    mounted: bool,
}

impl Pins {
    /// Makes the folders, on a bpffs that is mounted at `root` unless `root` is on one.
    pub(crate) fn prepare(root: &Path, layout: &str) -> Result<Self, OpenError> {
        let pin_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Pin { path, source }
        };
        let mounted = mount_bpffs(root)?;
        let pins = Self { root: root.to_owned(), layout: root.join(layout), mounted };
        for folder in [pins.links(), pins.tags(), pins.maps(), pins.programs(), pins.arrays()] {
            fs::create_dir_all(&folder).map_err(pin_error(&folder))?;
        }
        Ok(pins)
    }

    /// Those below `root` of whatever layout, to be removed; `None` where there can be none.
    pub(crate) fn left(root: &Path) -> Option<Self> {
        let (root, layout) = (root.to_owned(), root.join("none"));
        is_bpffs(&root).then_some(Self { root, layout, mounted: false })
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(crate) fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }

    pub(crate) fn layout(&self) -> &Path {
        &self.layout
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.layout.join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        // A dot is not allowed in a bpffs; no map of ours has one.
        self.maps().join(name)
    }

    fn programs(&self) -> PathBuf {
        self.layout.join("programs")
    }

    fn arrays(&self) -> PathBuf {
        self.layout.join("arrays")
    }

    pub(crate) fn program(&self, build: &str, name: &str) -> PathBuf {
        self.programs().join(build).join(name)
    }

    /// Where a program leads on to.
    pub(crate) fn array(&self, build: &str, program: &str) -> PathBuf {
        self.arrays().join(build).join(program)
    }

    /// The programs of all builds with these tables.
    pub(crate) fn all_programs(&self) -> io::Result<Vec<PathBuf>> {
        pins_of_builds(&self.programs())
    }

    /// Removes the programs of other builds that go, and then what none leads on by.
    pub(crate) fn remove_other_programs(
        &self,
        build: &str,
        goes: impl Fn(&Path) -> bool,
    ) -> Result<(), OpenError> {
        let (programs, arrays) = (self.programs(), self.arrays());
        let is_ours = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with(build));
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Pin { path, source }
        };
        let others = self.all_programs().map_err(error(&programs))?.into_iter();
        for path in others.filter(|path| !is_ours(path) && goes(path)) {
            fs::remove_file(&path).map_err(error(&path))?;
            // The folder goes with its last one.
            let _is_left = path.parent().map(fs::remove_dir);
        }
        let all = pins_of_builds(&arrays).map_err(error(&arrays))?;
        let of = |array: &Path| array.strip_prefix(&arrays).map(|program| programs.join(program));
        let leads_on = |array: &Path| of(array).is_ok_and(|program| program.exists());
        for path in all.iter().filter(|array| !is_ours(array) && !leads_on(array)) {
            fs::remove_file(path).map_err(error(path))?;
            let _is_left = path.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    /// Removes what other layouts pinned of which no program stays: without its pins one that is attached would lead nowhere.
    pub(crate) fn remove_other_layouts(
        &self,
        goes: impl Fn(&Path) -> bool,
    ) -> Result<(), OpenError> {
        self.remove_layouts(|path| {
            path != self.layout
                && match pins_of_builds(&path.join("programs")) {
                    Ok(programs) => programs.iter().all(|program| goes(program)),
                    Err(error) => error.kind() == io::ErrorKind::NotFound,
                }
        })
    }

    fn remove_layouts(&self, goes: impl Fn(&Path) -> bool) -> Result<(), OpenError> {
        let error = |source| OpenError::Pin { path: self.root.clone(), source };
        for entry in fs::read_dir(&self.root).map_err(error)? {
            let path = entry.map_err(error)?.path();
            // The kernel puts files of its own into a bpffs, and an operator may put others.
            let is_layout = path.file_name().is_some_and(|n| layout::is_name(&n.to_string_lossy()));
            if is_layout && goes(&path) {
                remove(&path).map_err(|source| OpenError::Pin { path, source })?;
            }
        }
        Ok(())
    }

    /// Removes all attachments.
    pub(crate) fn remove_links(&self) -> Result<(), OpenError> {
        let error = |source| OpenError::Pin { path: self.root.clone(), source };
        for entry in fs::read_dir(self.links()).into_iter().flatten() {
            links::take_off(&entry.map_err(error)?.path()).map_err(error)?;
        }
        remove(&self.links()).map_err(error)
    }

    /// Removes everything, of all layouts, and the bpffs if this process mounted it.
    pub(crate) fn destroy(self) -> Result<(), OpenError> {
        let error = |source| OpenError::Pin { path: self.root.clone(), source };
        // Attachments first: no packet meets a table that is going.
        self.remove_links()?;
        remove(&self.tags()).map_err(error)?;
        self.remove_layouts(|_| true)?;
        if self.mounted {
            umount2(&self.root, MntFlags::MNT_DETACH).map_err(|e| error(e.into()))?;
        }
        Ok(())
    }
}

/// What is pinned in the folders of builds.
fn pins_of_builds(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for build in fs::read_dir(folder)? {
        let path = build?.path();
        if path.is_dir() {
            let pins = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
            all.extend(pins.collect::<io::Result<Vec<_>>>()?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

/// Removes a pin, which need not be there.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
