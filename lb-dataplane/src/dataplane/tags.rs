//! VLAN tags that devices take off before an XDP program sees the frame: they leave them in their place while one of ours is there.
//!
//! What was switched off for that, and is to be on again afterwards, is a folder each beside the pins, which outlives this process
//! as they do, and the host as little: `tags/<ifindex>-<feature>`.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::attach::name_of;
use crate::pins::Pins;
use crate::sys::ethtool::{Features, RX_C_TAG, RX_S_TAG};

/// Has an interface leave tags in their place, as far as it can; `doctor` says what that means where it cannot.
pub(super) fn leave(pins: &Pins, ifindex: u32, name: &str) {
    let Ok(features) = Features::of(name) else { return };
    for feature in [RX_C_TAG, RX_S_TAG].into_iter().filter(|feature| features.has(feature)) {
        let mark = pins.tags().join(format!("{ifindex}-{feature}"));
        // What could not be put back is not changed.
        let marked = match fs::create_dir(&mark) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        if let Err(error) = marked.and_then(|()| features.set(name, feature, false)) {
            tracing::warn!(interface = name, feature, %error, "VLAN tags are not left in their place");
            let _was_not_made = fs::remove_dir(&mark);
        }
    }
}

/// Has an interface do again what it did before.
pub(super) fn give_back(pins: &Pins, ifindex: u32) {
    let of = |(index, ..): &Mark| *index == ifindex;
    marks(pins).into_iter().filter(of).for_each(undo);
}

/// The same with all of them.
pub(super) fn give_all_back(pins: &Pins) {
    marks(pins).into_iter().for_each(undo);
}

/// Forgets interfaces that are no more.
pub(super) fn forget_gone(pins: &Pins) {
    for (_, _, mark) in marks(pins).into_iter().filter(|(index, ..)| name_of(*index).is_none()) {
        let _goes_with_the_next = fs::remove_dir(mark);
    }
}

/// An interface's index, a feature that was switched off there, and the folder that says so.
type Mark = (u32, String, PathBuf);

fn marks(pins: &Pins) -> Vec<Mark> {
    let Ok(entries) = fs::read_dir(pins.tags()) else { return Vec::new() };
    let mark = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let (index, feature) = path.file_name()?.to_str()?.split_once('-')?;
        Some((index.parse().ok()?, feature.to_owned(), path.clone()))
    };
    entries.filter_map(mark).collect()
}

fn undo((ifindex, feature, mark): Mark) {
    if let Some(name) = name_of(ifindex) {
        let on = Features::of(&name).and_then(|features| features.set(&name, &feature, true));
        if let Err(error) = on {
            tracing::warn!(interface = name, feature, %error, "VLAN tags are left in their place still");
        }
    }
    let _goes_with_the_next = fs::remove_dir(mark);
}
