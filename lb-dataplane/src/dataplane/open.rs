//! Opening: new maps or pinned ones; and taking all of them away.

use std::path::Path;
use std::sync::Arc;

use aya::util::KernelVersion;

use super::host_routes::HostRoutes;
use super::memory::Memory;
use super::object::Object;
use super::one_arm::OneArm;
use super::programs::{self, AGE, AGE6, Programs};
use super::ways_out::WaysOut;
use super::{Attached, Dataplane, Options, age, apply, attach, clients, routes, tags};
use crate::error::OpenError;
use crate::pins::Pins;
use crate::{host, layout, sys};

pub(super) fn open(options: &Options) -> Result<Dataplane, OpenError> {
    check_processor(std::env::consts::ARCH)?;
    check_kernel()?;
    if host::compiles_programs() == Some(false) {
        return Err(OpenError::NoJit);
    }
    sys::grace_period().map_err(OpenError::Membarrier)?;
    let maps = layout::maps(&options.sizes).map_err(|e| Box::new(aya::EbpfError::ParseError(e)))?;
    let pins = Pins::prepare(&options.pin_dir, &layout::name(&maps))?;
    let adopted = pins.map("FLOWS").exists();
    for (name, wanted) in &maps {
        if let Some(difference) = layout::compare(&pins.map(name), wanted)? {
            let difference = difference.as_configured(name, &options.sizes);
            return Err(OpenError::Mismatch {
                map: name.clone(),
                path: pins.layout().to_owned(),
                what: difference.what,
                pinned: difference.pinned,
                wanted: difference.wanted,
            });
        }
    }

    let object = Object::new(options, &maps, &pins)?;
    let mut ebpf = object.load()?;
    let mut memory = Memory::map(&ebpf, &options.sizes).map_err(OpenError::Memory)?;
    // Before any program finds entries by it.
    memory.flows.set_seed(object.flow_seed());
    memory.flows6.set_seed(object.flow_seed());
    let mut programs = Programs::new(object, &programs::map_ids(&pins, maps.keys())?);
    for name in [AGE, AGE6] {
        programs.get(&mut ebpf, &pins, name)?;
    }

    age::set_timeouts(&mut ebpf, &options.timeouts)?;
    clients::forget_removed(&mut ebpf)?;
    let mut served = apply::adopt(&mut ebpf, &mut memory, apply::limits(&options.sizes))?;
    apply::set_backend_addresses(&mut ebpf, &mut served)?;
    let fib = routes::open(&ebpf, &options.sizes).map_err(OpenError::Fib)?;
    let scan = age::Scan::new(options);
    let one_arm = OneArm::default();
    let early_fragments = (options.sizes.early_fragments, options.early_fragments_for);
    Ok(Dataplane {
        ebpf,
        pins,
        programs,
        adopted,
        served,
        memory,
        one_arm,
        host_routes: HostRoutes::default(),
        fib,
        scan,
        early_fragments,
        held: Arc::default(),
        ways_out: WaysOut::new(options.redirect_to_peer.clone()),
    })
}

/// Takes everything out of the kernel that dataplanes of any build have pinned below a folder, without loading programs or
/// reading tables: attachments, programs, flows, tables. What was attached in this network namespace; `None` where the folder is
/// on no bpffs, and so holds nothing of ours.
///
/// # Errors
///
/// A pin could not be removed.
pub fn clean(pin_dir: &Path) -> Result<Option<Vec<Attached>>, OpenError> {
    let Some(pins) = Pins::left(pin_dir) else { return Ok(None) };
    let attached = attach::attached(&pins);
    pins.remove_links()?;
    // Not before: a program that is still there would take a VLAN's frames for untagged ones.
    tags::give_all_back(&pins);
    pins.destroy()?;
    Ok(Some(attached))
}

/// Stores are seen in the order of the program there, and loads are made in it (Intel SDM volume 3, "Memory Ordering").
fn check_processor(found: &'static str) -> Result<(), OpenError> {
    if found == "x86_64" { Ok(()) } else { Err(OpenError::OtherProcessor { found }) }
}

fn check_kernel() -> Result<(), OpenError> {
    // tcx and its links.
    const NEEDED: (u8, u8) = (6, 6);
    match KernelVersion::current() {
        Ok(version) if version < KernelVersion::new(NEEDED.0, NEEDED.1, 0) => {
            Err(OpenError::OldKernel { found: format!("{version:?}"), needed: "6.6" })
        }
        // A kernel that does not tell its version is tried.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check_processor;

    #[test]
    fn a_processor_that_reorders_loads_is_refused_by_name() {
        assert!(check_processor("x86_64").is_ok());
        let refused = check_processor("aarch64").unwrap_err().to_string();
        assert!(refused.contains("x86-64 only") && refused.contains("aarch64"), "{refused}");
    }
}
