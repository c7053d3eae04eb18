//! The object with the programs as a process loads it: its constants, and where its maps are pinned and how big they are.

use std::array;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

use lb_dataplane_common::flow_table::{SECRETS, buckets_for, secret};

use super::Options;
use crate::error::OpenError;
use crate::flow_table;
use crate::layout::{self, Definition, OBJECT};
use crate::pins::Pins;

/// What the programs are loaded with.
#[derive(Clone, Debug, Hash)]
pub(super) struct Constants {
    record: u8,
    sample_every: u32,
    lines: u32,
    half_open_mask: u32,
    half_open_mask6: u32,
    client_bits: u32,
    client_bits6: u32,
    flow_seed: u64,
    flow_buckets: u32,
    flow_buckets6: u32,
}

impl Constants {
    fn of(options: &Options, pins: &Pins) -> Result<Self, OpenError> {
        let mask = |flow_entries| layout::half_open_places(flow_entries) - 1;
        let flow_seed = flow_table::seed(&[pins.map("FLOWS"), pins.map("FLOWS6")])
            .map_err(OpenError::Memory)?;
        Ok(Self {
            record: u8::from(options.record),
            sample_every: options.sample_every,
            lines: layout::counted_lines(options.sizes.backends),
            half_open_mask: mask(options.sizes.flow_entries),
            half_open_mask6: mask(options.sizes.flow_entries6),
            client_bits: options.client_prefixes.bits(),
            client_bits6: options.client_prefixes.bits6(),
            flow_seed,
            flow_buckets: buckets_for(options.sizes.flow_entries),
            flow_buckets6: buckets_for(options.sizes.flow_entries6),
        })
    }
}

/// The object; loading it again gives the same maps.
#[derive(Clone, Debug)]
pub(super) struct Object {
    constants: Constants,
    /// Name, entries and pin.
    maps: Vec<(String, u32, PathBuf)>,
}

impl Object {
    pub(super) fn new(
        options: &Options,
        maps: &BTreeMap<String, Definition>,
        pins: &Pins,
    ) -> Result<Self, OpenError> {
        let map = |(name, wanted): (&String, &Definition)| {
            (name.clone(), wanted.max_entries, pins.map(name))
        };
        Ok(Self { constants: Constants::of(options, pins)?, maps: maps.iter().map(map).collect() })
    }

    /// What the hash of the flow tables begins with.
    pub(super) const fn flow_seed(&self) -> u64 {
        self.constants.flow_seed
    }

    pub(super) const fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Maps that are pinned are opened, others are made and pinned. No program is given to the kernel.
    pub(super) fn load(&self) -> Result<Ebpf, OpenError> {
        let constants = &self.constants;
        let secrets: [u64; SECRETS] = array::from_fn(|n| secret(constants.flow_seed, n));
        let mut loader = EbpfLoader::new();
        // What the verifier objects to and no more: with every instruction that it looked at, its log is one of megabytes, for
        // which it is asked again and again with more room, each time the better part of a second.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.override_global("LBD_RECORD", &constants.record, true);
        loader.override_global("LBD_SAMPLE_EVERY", &constants.sample_every, true);
        loader.override_global("LBD_LINES", &constants.lines, true);
        loader.override_global("LBD_HALF_OPEN_MASK", &constants.half_open_mask, true);
        loader.override_global("LBD_HALF_OPEN_MASK6", &constants.half_open_mask6, true);
        loader.override_global("LBD_CLIENT_BITS", &constants.client_bits, true);
        loader.override_global("LBD_CLIENT_BITS6", &constants.client_bits6, true);
        loader.override_global("LBD_FLOW_SECRETS", &secrets, true);
        loader.override_global("LBD_FLOW_BUCKETS", &constants.flow_buckets, true);
        loader.override_global("LBD_FLOW_BUCKETS6", &constants.flow_buckets6, true);
        for (name, entries, pin) in &self.maps {
            loader.map_max_entries(name, *entries);
            loader.map_pin_path(name, pin);
        }
        loader.load(OBJECT).map_err(load_error)
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
