//! Opening: new maps or pinned ones.

use std::io;
use std::sync::Arc;

use aya::EbpfLoader;
use aya::util::KernelVersion;

use super::one_arm::OneArm;
use super::programs::{self, AGE, AGE6, Programs};
use super::{Dataplane, Options, age, apply, routes};
use crate::error::OpenError;
use crate::layout::{self, OBJECT};
use crate::pins::Pins;
use crate::sys;

/// What the programs are loaded with.
#[derive(Hash)]
struct Constants {
    record: u8,
    sample_every: u32,
    half_open_mask: u32,
    half_open_mask6: u32,
    client_mask: [u32; 4],
    client_mask6: [u32; 4],
}

impl Constants {
    fn of(options: &Options) -> Self {
        let mask = |flow_entries| layout::half_open_places(flow_entries) - 1;
        Self {
            record: u8::from(options.record),
            sample_every: options.sample_every,
            half_open_mask: mask(options.sizes.flow_entries),
            half_open_mask6: mask(options.sizes.flow_entries6),
            client_mask: options.client_prefixes.mask(),
            client_mask6: options.client_prefixes.mask6(),
        }
    }
}

pub(super) fn open(options: &Options) -> Result<Dataplane, OpenError> {
    check_kernel()?;
    sys::grace_period().map_err(OpenError::Membarrier)?;
    let maps = layout::maps(&options.sizes).map_err(|e| Box::new(aya::EbpfError::ParseError(e)))?;
    let pins = Pins::prepare(&options.pin_dir, &layout::name(&maps))?;
    let adopted = pins.map("FLOWS").exists();
    for (name, wanted) in &maps {
        if let Some(difference) = layout::compare(&pins.map(name), wanted)? {
            return Err(OpenError::Mismatch {
                map: name.clone(),
                path: pins.layout().to_owned(),
                what: difference.what,
                pinned: difference.pinned,
                wanted: difference.wanted,
            });
        }
    }

    let constants = Constants::of(options);
    let mut loader = EbpfLoader::new();
    loader.override_global("LBD_RECORD", &constants.record, true);
    loader.override_global("LBD_SAMPLE_EVERY", &constants.sample_every, true);
    loader.override_global("LBD_HALF_OPEN_MASK", &constants.half_open_mask, true);
    loader.override_global("LBD_HALF_OPEN_MASK6", &constants.half_open_mask6, true);
    loader.override_global("LBD_CLIENT_MASK", &constants.client_mask[..], true);
    loader.override_global("LBD_CLIENT_MASK6", &constants.client_mask6[..], true);
    for (name, wanted) in &maps {
        loader.map_max_entries(name, wanted.max_entries);
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(load_error)?;
    let mut programs = Programs::new(&constants, &programs::map_ids(&pins, maps.keys())?);
    for name in [AGE, AGE6] {
        programs.get(&mut ebpf, &pins, name)?;
    }

    age::set_timeouts(&mut ebpf, &options.timeouts)?;
    let rings = apply::map_rings(&ebpf, &options.sizes).map_err(OpenError::Rings)?;
    let served = apply::adopt(&mut ebpf, &rings, apply::limits(&options.sizes))?;
    let fib = routes::open(&ebpf, &options.sizes).map_err(OpenError::Fib)?;
    let scan = age::Scan::new(options);
    let one_arm = OneArm::default();
    let held = Arc::default();
    Ok(Dataplane {
        ebpf,
        pins,
        programs,
        adopted,
        served,
        rings,
        one_arm,
        fib,
        scan,
        held,
        xdp: None,
    })
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

fn load_error(error: aya::EbpfError) -> OpenError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return OpenError::NotPermitted(io::Error::from(io.kind()));
        }
        cause = current.source();
    }
    OpenError::Load(Box::new(error))
}
