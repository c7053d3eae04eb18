//! The programs: loaded when the first interface needs them, and taken over from the process before this one where that loaded
//! the same ones.
//!
//! The verifier reads those of the packet path for the better part of a second each, and most hosts attach to one hook only.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::MapInfo;
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;

use super::Hook;
use crate::error::OpenError;
use crate::layout::OBJECT;
use crate::pins::Pins;

/// The program at TC.
pub(super) const TC: &str = "lbd_tc";
/// The program at XDP.
pub(super) const XDP: &str = "lbd_xdp";
/// The program that removes idle flows of IPv4.
pub(super) const AGE: &str = "lbd_age";
/// That of IPv6.
pub(super) const AGE6: &str = "lbd_age6";

/// The program of a hook.
pub(super) const fn of(hook: Hook) -> &'static str {
    match hook {
        Hook::Tc => TC,
        Hook::Xdp | Hook::GenericXdp => XDP,
    }
}

/// The object's programs.
pub(super) struct Programs {
    /// What of the pinned ones are the same.
    build: String,
    loaded: BTreeMap<&'static str, Program>,
    /// What the verifier does not accept, it does not the next time either: that is not asked for every few seconds.
    refused: BTreeMap<&'static str, Arc<ProgramError>>,
}

impl Programs {
    /// Programs with these constants and maps.
    pub(super) fn new(constants: &impl Hash, maps: &[u32]) -> Self {
        let mut hasher = DefaultHasher::new();
        // The kernel gives the id of a map to no other one: programs with the same ones have the same maps.
        (OBJECT, constants, maps).hash(&mut hasher);
        let build = format!("{:016x}", hasher.finish());
        Self { build, loaded: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// A program that is there.
    pub(super) fn loaded(&self, name: &str) -> Option<&Program> {
        self.loaded.get(name)
    }

    /// A program, which is loaded if it is not there.
    pub(super) fn get(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Pins,
        name: &'static str,
    ) -> Result<&mut Program, OpenError> {
        if !self.loaded.contains_key(name) {
            let program = self.adopt_or_load(ebpf, pins, name)?;
            self.loaded.insert(name, program);
        }
        Ok(self.loaded.get_mut(name).expect("it was put there"))
    }

    fn adopt_or_load(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Pins,
        name: &'static str,
    ) -> Result<Program, OpenError> {
        let path = pins.program(&self.build, name);
        if let Some(adopted) = adopt(&path, name) {
            return Ok(adopted);
        }
        let refused = |source| OpenError::Program { program: name, source };
        if let Some(before) = self.refused.get(name) {
            return Err(refused(Arc::clone(before)));
        }
        // Loaded already: what came after it failed, and is tried again.
        let loaded = match load(ebpf, name) {
            Err(ProgramError::AlreadyLoaded) => Ok(()),
            other => other,
        };
        if let Err(error) = loaded {
            let is_final = is_final(&error);
            let error = Arc::new(error);
            if is_final {
                self.refused.insert(name, Arc::clone(&error));
            }
            return Err(refused(error));
        }
        let program = ebpf.program_mut(name).expect("the object holds this program");
        pin(program, &path).map_err(|source| OpenError::Pin { path: path.clone(), source })?;
        if matches!(name, TC | XDP) {
            // The packet path loads: nobody goes back to what other builds left.
            pins.remove_other_layouts()?;
            pins.remove_other_programs(&self.build)?;
        }
        from_pin(&path, name).map_err(|e| refused(Arc::new(e)))
    }
}

/// The ids of maps by where they are pinned.
pub(super) fn map_ids<'a>(
    pins: &Pins,
    names: impl Iterator<Item = &'a String>,
) -> Result<Vec<u32>, OpenError> {
    names.map(|name| Ok(MapInfo::from_pin(pins.map(name))?.id())).collect()
}

/// The program that is pinned, unless the kernel interprets it: it may compile now.
fn adopt(path: &Path, name: &str) -> Option<Program> {
    let program = from_pin(path, name).ok()?;
    (program.info().ok()?.size_jitted() > 0).then_some(program)
}

fn from_pin(path: &Path, name: &str) -> Result<Program, ProgramError> {
    Ok(match name {
        TC => Program::SchedClassifier(SchedClassifier::from_pin(path)?),
        _ => Program::Xdp(Xdp::from_pin(path, XdpAttachType::Interface)?),
    })
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(name).expect("the object holds this program");
    if name == TC {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()
    } else {
        let program: &mut Xdp = program.try_into()?;
        program.load()
    }
}

fn pin(program: &mut Program, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    program.pin(path).map_err(io::Error::other)
}

/// Whether it is the verifier that refuses, and not the host, which may be short of something now.
fn is_final(error: &ProgramError) -> bool {
    let ProgramError::LoadError { io_error, .. } = error else { return false };
    matches!(io_error.raw_os_error(), Some(libc::EACCES | libc::EINVAL | libc::E2BIG))
}
