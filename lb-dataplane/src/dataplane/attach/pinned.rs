//! Pins of attachments: which lead somewhere still, and whose tables their programs have.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;

use super::super::{interfaces, programs, tags};
use super::{Attached, Hook, name_of};
use crate::pins::Pins;
use crate::sys::links;

/// Every hook.
pub(super) const HOOKS: [Hook; 3] = [Hook::Tc, Hook::Xdp, Hook::GenericXdp];

/// A pin of an attachment.
struct Pinned {
    path: PathBuf,
    ifindex: u32,
    hook: Hook,
}

impl Pinned {
    /// What is pinned there, with the name of its interface; none if that is gone, whoever has its index now.
    fn live(&self) -> Option<(links::Link, String)> {
        let link = links::look_at(&self.path).ok()?;
        (link.ifindex == self.ifindex).then_some(link).zip(name_of(self.ifindex))
    }
}

/// All of them, by the interface's index.
fn all_pinned(pins: &Pins) -> Vec<Pinned> {
    let Ok(entries) = fs::read_dir(pins.links()) else { return Vec::new() };
    let mut all: Vec<Pinned> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let (index, hook) = path.file_name()?.to_str()?.split_once('-')?;
            let hook = HOOKS.into_iter().find(|known| word(*known) == hook)?;
            Some(Pinned { ifindex: index.parse().ok()?, hook, path: path.clone() })
        })
        .collect();
    all.sort_by_key(|one| one.ifindex);
    all
}

/// The ids of the programs in all attachments.
pub(in crate::dataplane) fn program_ids(pins: &Pins) -> BTreeSet<u32> {
    all_pinned(pins).iter().filter_map(|one| Some(one.live()?.0.program)).collect()
}

/// The interfaces whose packets meet our tables.
pub(in crate::dataplane) fn carried(pins: &Pins) -> BTreeSet<u32> {
    let ours = programs::ids(pins);
    let is_ours = |one: &Pinned| one.live().is_some_and(|(link, _)| ours.contains(&link.program));
    all_pinned(pins).iter().filter(|one| is_ours(one)).map(|one| one.ifindex).collect()
}

pub(in crate::dataplane) fn attached(pins: &Pins) -> Vec<Attached> {
    let attached = |one: &Pinned| {
        let (_, name) = one.live()?;
        Some(Attached { name, ifindex: one.ifindex, hook: one.hook })
    };
    all_pinned(pins).iter().filter_map(attached).collect()
}

/// Lets go of interfaces that are no more: their entries would fill the map, and attachments that lead nowhere keep programs
/// with all their tables, also other builds' ones; whether there were such.
pub(in crate::dataplane) fn forget_gone(ebpf: &mut Ebpf, pins: &Pins) -> bool {
    tags::forget_gone(pins);
    let (live, gone): (Vec<_>, Vec<_>) =
        all_pinned(pins).into_iter().partition(|one| one.live().is_some());
    for one in &gone {
        let _stays_until_the_next_time = remove(&one.path);
    }
    let known = interfaces::known(ebpf).into_iter();
    for index in known.filter(|index| live.iter().all(|one| one.ifindex != *index)) {
        interfaces::forget(ebpf, index);
    }
    !gone.is_empty()
}

/// Where an attachment is pinned.
pub(super) fn pin(pins: &Pins, ifindex: u32, hook: Hook) -> PathBuf {
    pins.links().join(format!("{ifindex}-{}", word(hook)))
}

/// Of a hook, in the name of its pin.
const fn word(hook: Hook) -> &'static str {
    match hook {
        Hook::Tc => "tc",
        Hook::Xdp => "xdp",
        Hook::GenericXdp => "generic",
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
