//! Pins of attachments: which lead somewhere still, and whose tables their programs have.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use aya::Ebpf;

use super::super::programs::{self, Programs};
use super::super::{interfaces, tags};
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
    /// Whether its interface is gone, whoever has its index now. What cannot be looked at, as when descriptors have run out, is
    /// not: what is attached stays.
    fn is_gone(&self) -> bool {
        links::look_at(&self.path).is_ok_and(|link| link.ifindex != self.ifindex)
    }
}

/// All of them, by the interface's index.
fn all_pinned(pins: &Pins) -> io::Result<Vec<Pinned>> {
    let pinned = |path: PathBuf| {
        let (index, hook) = path.file_name()?.to_str()?.split_once('-')?;
        let hook = HOOKS.into_iter().find(|known| word(*known) == hook)?;
        Some(Pinned { ifindex: index.parse().ok()?, hook, path: path.clone() })
    };
    let entries = fs::read_dir(pins.links())?.map(|entry| Ok(pinned(entry?.path())));
    let all: Vec<Option<Pinned>> = entries.collect::<io::Result<_>>()?;
    let mut all: Vec<Pinned> = all.into_iter().flatten().collect();
    all.sort_by_key(|one| one.ifindex);
    Ok(all)
}

/// The programs in all attachments, with the interfaces.
fn programs_of_all(pins: &Pins) -> io::Result<Vec<links::Link>> {
    let all = all_pinned(pins)?;
    let all = all.iter().map(|one| Ok((one.ifindex, links::look_at(&one.path)?)));
    let all = all.collect::<io::Result<Vec<_>>>()?.into_iter();
    Ok(all.filter(|(ifindex, link)| link.ifindex == *ifindex).map(|(_, link)| link).collect())
}

/// The ids of the programs in all attachments.
pub(in crate::dataplane) fn program_ids(pins: &Pins) -> io::Result<BTreeSet<u32>> {
    Ok(programs_of_all(pins)?.iter().map(|link| link.program).collect())
}

/// The interfaces whose packets meet our tables.
pub(in crate::dataplane) fn carried(pins: &Pins) -> io::Result<BTreeSet<u32>> {
    let ours = programs::ids(pins)?;
    let all = programs_of_all(pins)?.into_iter();
    Ok(all.filter(|link| ours.contains(&link.program)).map(|link| link.ifindex).collect())
}

pub(in crate::dataplane) fn attached(pins: &Pins) -> Vec<Attached> {
    let attached = |one: &Pinned| {
        let name = name_of(one.ifindex).filter(|_| !one.is_gone())?;
        Some(Attached { name, ifindex: one.ifindex, hook: one.hook })
    };
    all_pinned(pins).unwrap_or_default().iter().filter_map(attached).collect()
}

/// Lets go of interfaces that are no more: their entries would fill the map, and attachments that lead nowhere keep programs
/// with all their tables, also other builds' ones.
pub(in crate::dataplane) fn forget_gone(ebpf: &mut Ebpf, programs: &Programs, pins: &Pins) {
    tags::forget_gone(pins);
    let Ok(all) = all_pinned(pins) else { return };
    let (gone, stay): (Vec<_>, Vec<_>) = all.into_iter().partition(Pinned::is_gone);
    for one in &gone {
        let _stays_until_the_next_time = links::take_off(&one.path);
    }
    let known = interfaces::known(ebpf).into_iter();
    for index in known.filter(|index| stay.iter().all(|one| one.ifindex != *index)) {
        interfaces::forget(ebpf, index);
    }
    if !gone.is_empty() {
        programs.remove_others(pins);
    }
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
