//! Loading: new maps or pinned ones, and programs that use them.

use std::io;

use aya::programs::{Program, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use super::one_arm::OneArm;
use super::{Dataplane, Options, age, apply, routes};
use crate::error::OpenError;
use crate::layout::{self, OBJECT};
use crate::pins::Pins;
use crate::sys;

/// The program at TC.
pub(super) const TC: &str = "lbd_tc";
/// The program at XDP.
pub(super) const XDP: &str = "lbd_xdp";
/// The program that removes idle flows of IPv4.
pub(super) const AGE: &str = "lbd_age";
/// That of IPv6.
pub(super) const AGE6: &str = "lbd_age6";

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

    let record = u8::from(options.record);
    let half_open_mask = layout::half_open_places(options.sizes.flow_entries) - 1;
    let half_open_mask6 = layout::half_open_places(options.sizes.flow_entries6) - 1;
    let mut loader = EbpfLoader::new();
    loader.override_global("LBD_RECORD", &record, true);
    loader.override_global("LBD_SAMPLE_EVERY", &options.sample_every, true);
    loader.override_global("LBD_HALF_OPEN_MASK", &half_open_mask, true);
    loader.override_global("LBD_HALF_OPEN_MASK6", &half_open_mask6, true);
    for (name, wanted) in &maps {
        loader.map_max_entries(name, wanted.max_entries);
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(load_error)?;
    for name in [TC, XDP, AGE, AGE6] {
        load_program(&mut ebpf, &pins, name)?;
    }
    pins.remove_other_layouts()?;

    age::set_timeouts(&mut ebpf, &options.timeouts)?;
    let rings = apply::map_rings(&ebpf, &options.sizes).map_err(OpenError::Rings)?;
    let served = apply::adopt(&mut ebpf, &rings, apply::limits(&options.sizes))?;
    let fib = routes::open(&ebpf, &options.sizes).map_err(OpenError::Fib)?;
    let scan = age::Scan::new(options.timeouts);
    let one_arm = OneArm::default();
    Ok(Dataplane { ebpf, pins, adopted, served, rings, one_arm, fib, scan, xdp: None })
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

fn load_program(ebpf: &mut Ebpf, pins: &Pins, name: &'static str) -> Result<(), OpenError> {
    let refused = |source| OpenError::Program { program: name, source: Box::new(source) };
    let program = ebpf.program_mut(name).expect("the object holds this program");
    if name == TC {
        let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
    } else {
        let program: &mut Xdp = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
    }
    pin_program(program, pins, name)
}

fn pin_program(program: &mut Program, pins: &Pins, name: &str) -> Result<(), OpenError> {
    let path = pins.program(name);
    let error = |source| OpenError::Pin { path: pins.program(name), source };
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
        Ok(()) | Err(_) => {}
    }
    program.pin(&path).map_err(|e| error(io::Error::other(e)))
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
