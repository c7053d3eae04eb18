//! The programs: loaded when the first interface needs them, and taken over from the process before this one where that loaded
//! the same ones.
//!
//! The verifier reads those of the packet path for the better part of a second each, and most hosts attach to one hook only. A hook
//! has four: the one that is attached leads to the others by an array of its own, which is pinned beside it. What passes between
//! them is theirs alone, so no program ever leads to one of another build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Map, MapInfo, ProgramArray};
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;

use super::attach::{self, driver, order};
use super::object::Object;
use super::{Dataplane, Hook, HookChoice};
use crate::error::OpenError;
use crate::layout::OBJECT;
use crate::pins::{self, Pins};

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

/// What a program leads on to, in the order of [`Next`](lb_dataplane_common::pipeline::Next), and the map by which it does.
const fn leads_to(name: &str) -> Option<([&'static str; 3], &'static str)> {
    match name.as_bytes() {
        b"lbd_tc" => Some((["lbd_tc_find", "lbd_tc_begin", "lbd_tc_begin6"], "TC_NEXT")),
        b"lbd_xdp" => Some((["lbd_xdp_find", "lbd_xdp_begin", "lbd_xdp_begin6"], "XDP_NEXT")),
        _ => None,
    }
}

impl Dataplane {
    /// What is to be loaded before a hook is attached to; whoever has [run](Load::run) it tells [`Dataplane::loaded`].
    #[must_use]
    pub fn to_load(&self, hook: Hook) -> Load {
        self.programs.to_load(&self.pins, of(hook))
    }

    /// The same for the hooks that these interfaces are attached to first, without what is there or was refused. What could not
    /// be loaded for other reasons is tried again from here on.
    #[must_use]
    pub fn to_load_for(&mut self, interfaces: &[String], choice: HookChoice) -> Vec<Load> {
        self.programs.failed.clear();
        let first = |name: &String| order(choice, &driver(name)).first().copied();
        let names: BTreeSet<&'static str> = interfaces.iter().filter_map(first).map(of).collect();
        let (programs, pins) = (&self.programs, &self.pins);
        let lacking = names.into_iter().filter(|name| programs.lacks(pins, name));
        lacking.map(|name| programs.to_load(pins, name)).collect()
    }

    /// Takes in what came of loading a program: that it is there, or why it is not, for the next attachment.
    pub fn loaded(&mut self, loaded: Loaded) {
        self.programs.take_in(loaded);
    }

    /// The program of a hook, to run it on a packet without an interface; it is loaded if it is not there.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn program(&mut self, hook: Hook) -> Result<&Program, OpenError> {
        let name = of(hook);
        self.programs.get(&mut self.ebpf, &self.pins, name).map(|program| &*program)
    }

    /// Whether the kernel has compiled the programs; `None` where it does not say.
    #[must_use]
    pub fn compiled(&self) -> Option<bool> {
        // It compiles all of them or none, and those that age flows are always there.
        let program = self.programs.loaded(AGE)?;
        Some(program.info().ok()?.size_jitted() > 0)
    }
}

/// The object's programs.
pub(super) struct Programs {
    object: Object,
    /// What of the pinned ones are the same.
    build: String,
    loaded: BTreeMap<&'static str, Program>,
    /// What the verifier does not accept of what leads to it, it does not the next time either: that is not asked for every few
    /// seconds.
    refused: BTreeMap<&'static str, (&'static str, Arc<ProgramError>)>,
    /// Why others were not loaded: told of every interface that needs them, until they are tried again.
    failed: BTreeMap<&'static str, Arc<OpenError>>,
}

impl Programs {
    /// The object's, with these maps.
    pub(super) fn new(object: Object, maps: &[u32]) -> Self {
        let mut hasher = DefaultHasher::new();
        // The kernel gives the id of a map to no other one: programs with the same ones have the same maps.
        (OBJECT, object.constants(), maps).hash(&mut hasher);
        Self {
            object,
            build: format!("{:016x}", hasher.finish()),
            loaded: BTreeMap::new(),
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
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
        if !self.is_there(pins, name)? {
            let outcome = load(ebpf, name, &self.places(pins, name));
            outcome.inspect_err(|error| self.note_refusal(name, error))?;
            self.failed.remove(name);
            self.is_there(pins, name)?;
        }
        let path = pins.program(&self.build, name);
        let gone = || OpenError::Pin { path, source: io::ErrorKind::NotFound.into() };
        self.loaded.get_mut(name).ok_or_else(gone)
    }

    /// A program, unless it is to be loaded first.
    pub(super) fn find(
        &mut self,
        pins: &Pins,
        name: &'static str,
    ) -> Result<Option<&mut Program>, Arc<OpenError>> {
        if let Some(error) = self.failed.get(name) {
            return Err(Arc::clone(error));
        }
        Ok(if self.is_there(pins, name)? { self.loaded.get_mut(name) } else { None })
    }

    /// Whether a program is to be loaded, as it is neither there nor refused.
    pub(super) fn lacks(&self, pins: &Pins, name: &str) -> bool {
        let is_known = self.loaded.contains_key(name) || self.refused.contains_key(name);
        !is_known && !self.places(pins, name).exist()
    }

    /// Whether a program is loaded, by whomever of the same build.
    fn is_there(&mut self, pins: &Pins, name: &'static str) -> Result<bool, OpenError> {
        if let Some((program, before)) = self.refused.get(name) {
            return Err(OpenError::Program { program, source: Arc::clone(before) });
        }
        if self.loaded.contains_key(name) {
            return Ok(true);
        }
        let places = self.places(pins, name);
        if !places.exist() {
            return Ok(false);
        }
        let Ok(program) = from_pin(&places.program, name) else { return Ok(false) };
        self.loaded.insert(name, program);
        self.remove_others(pins);
        Ok(true)
    }

    /// Removes what other builds pinned and what no interface runs, once a program of the packet path is there: nobody goes back to
    /// them then, or has come back from there. By the programs that stay it is told what tables they have.
    pub(super) fn remove_others(&self, pins: &Pins) {
        if ![TC, XDP].iter().any(|name| self.loaded.contains_key(name)) {
            return;
        }
        let Ok(attached) = attach::program_ids(pins) else { return };
        let goes = |path: &Path| id_of(path).is_ok_and(|id| !attached.contains(&id));
        warn(pins.remove_other_layouts(goes));
        warn(pins.remove_other_programs(&self.build, goes));
    }

    /// The work of loading a program, for a thread of its own.
    pub(super) fn to_load(&self, pins: &Pins, name: &'static str) -> Load {
        Load { object: self.object.clone(), name, places: self.places(pins, name) }
    }

    fn places(&self, pins: &Pins, name: &str) -> Places {
        let array = leads_to(name).map(|_| pins.array(&self.build, name));
        Places { program: pins.program(&self.build, name), array }
    }

    /// What came of it.
    pub(super) fn take_in(&mut self, loaded: Loaded) {
        let Loaded { name, outcome } = loaded;
        self.failed.remove(name);
        if let Err(error) = outcome {
            self.note_refusal(name, &error);
            self.failed.insert(name, error.into());
        }
    }

    fn note_refusal(&mut self, name: &'static str, error: &OpenError) {
        if let OpenError::Program { program, source } = error
            && is_final(source)
        {
            self.refused.insert(name, (program, Arc::clone(source)));
        }
    }
}

fn warn(removed: Result<(), OpenError>) {
    if let Err(error) = removed {
        // It takes memory, and is no reason to attach nothing.
        tracing::warn!(why = ?error, "what other builds have pinned is not removed");
    }
}

/// The ids of the programs of all builds with these tables.
pub(super) fn ids(pins: &Pins) -> io::Result<BTreeSet<u32>> {
    pins.all_programs()?.iter().map(|path| id_of(path)).collect()
}

fn id_of(pin: &Path) -> io::Result<u32> {
    ProgramInfo::from_pin(pin).map(|info| info.id()).map_err(io::Error::other)
}

/// A program that is to be loaded.
#[derive(Debug)]
pub struct Load {
    object: Object,
    name: &'static str,
    places: Places,
}

/// Where a program is pinned, and where the array is by which it leads on.
#[derive(Debug)]
struct Places {
    program: PathBuf,
    array: Option<PathBuf>,
}

impl Places {
    fn exist(&self) -> bool {
        self.program.exists() && self.array.as_deref().is_none_or(Path::exists)
    }
}

impl Load {
    /// Has the kernel check and compile the program, which takes the better part of a second, beside whatever is done with the
    /// dataplane meanwhile; [`Dataplane::loaded`] takes what comes of it.
    #[must_use]
    pub fn run(self) -> Loaded {
        let Self { object, name, places } = self;
        let outcome = object.load().and_then(|mut ebpf| load(&mut ebpf, name, &places));
        Loaded { name, outcome }
    }
}

/// What came of a [`Load`].
#[derive(Debug)]
pub struct Loaded {
    name: &'static str,
    outcome: Result<(), OpenError>,
}

/// The ids of maps by where they are pinned.
pub(super) fn map_ids<'a>(
    pins: &Pins,
    names: impl Iterator<Item = &'a String>,
) -> Result<Vec<u32>, OpenError> {
    names.map(|name| Ok(MapInfo::from_pin(pins.map(name))?.id())).collect()
}

fn from_pin(path: &Path, name: &str) -> Result<Program, ProgramError> {
    Ok(match name {
        TC => Program::SchedClassifier(SchedClassifier::from_pin(path)?),
        _ => Program::Xdp(Xdp::from_pin(path, XdpAttachType::Interface)?),
    })
}

/// How often the kernel is asked to take a program, at most.
const LOAD_TRIES: u32 = 5;

/// Loads and pins a program; before it what it leads on to, so that no packet ever meets only some of them.
fn load(ebpf: &mut Ebpf, name: &'static str, places: &Places) -> Result<(), OpenError> {
    if let (Some((others, map)), Some(path)) = (leads_to(name), &places.array) {
        let pin_error = |source| OpenError::Pin { path: path.clone(), source };
        for (place, other) in (0..).zip(others) {
            let program = have(ebpf, other)?.fd().and_then(|fd| Ok(fd.try_clone()?));
            let program = program.map_err(|error| pin_error(io::Error::other(error)))?;
            ProgramArray::try_from(array(ebpf, map))?.set(place, &program, 0)?;
        }
        make_room(path)
            .and_then(|()| array(ebpf, map).pin(path).map_err(io::Error::other))
            .map_err(pin_error)?;
    }
    let path = &places.program;
    let program = have(ebpf, name)?;
    make_room(path)
        .and_then(|()| program.pin(path).map_err(io::Error::other))
        .map_err(|source| OpenError::Pin { path: path.clone(), source })
}

fn array<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Map {
    ebpf.map_mut(name).expect("the object holds this map")
}

/// A program that the kernel has taken.
fn have<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, OpenError> {
    let program = ebpf.program_mut(name).expect("the object holds this program");
    match ask_kernel(program) {
        // Loaded already: what came after it failed, and is tried again.
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) if lacks_jit(&error) => Err(OpenError::NoJit),
        Err(error) => Err(OpenError::Program { program: name, source: Arc::new(error) }),
    }
}

/// A signal that comes meanwhile ends the verifier's work, also one that stops nothing; so the kernel is asked again then.
fn ask_kernel(program: &mut Program) -> Result<(), ProgramError> {
    let mut outcome = ask_once(program);
    for _ in 1..LOAD_TRIES {
        if !outcome.as_ref().is_err_and(is_interrupted) {
            break;
        }
        outcome = ask_once(program);
    }
    outcome
}

fn is_interrupted(error: &ProgramError) -> bool {
    let ProgramError::LoadError { io_error, .. } = error else { return false };
    io_error.raw_os_error() == Some(libc::EAGAIN)
}

fn ask_once(program: &mut Program) -> Result<(), ProgramError> {
    if let Program::SchedClassifier(program) = program {
        return program.load();
    }
    let program: &mut Xdp = program.try_into()?;
    program.load()
}

/// Makes room for a pin.
fn make_room(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    pins::remove_file(path)
}

/// Whether it is the verifier that refuses, and not the host, which may be short of something now.
pub(super) fn is_final(error: &ProgramError) -> bool {
    let ProgramError::LoadError { io_error, .. } = error else { return false };
    matches!(io_error.raw_os_error(), Some(libc::EACCES | libc::EINVAL | libc::E2BIG))
}

/// Whether the kernel refuses since it would interpret the program, whose callbacks need machine code: in the words of
/// `kernel/bpf/verifier.c`, as it has no error number of its own for that.
fn lacks_jit(error: &ProgramError) -> bool {
    let ProgramError::LoadError { verifier_log, .. } = error else { return false };
    let log = verifier_log.to_string();
    ["in non-JITed programs", "JIT is required"].iter().any(|words| log.contains(words))
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    fn refusal(errno: i32, log: &str) -> ProgramError {
        let io_error = io::Error::from_raw_os_error(errno);
        ProgramError::LoadError { io_error, verifier_log: VerifierLog::new(log.to_owned()) }
    }

    #[test]
    fn a_kernel_that_interprets_programs_is_told_from_one_that_objects_to_them() {
        let log = "callbacks are not allowed in non-JITed programs\nprocessed 4711 insns";
        assert!(lacks_jit(&refusal(libc::EINVAL, log)));
        let kfunc = "JIT is required for calling kernel function\n";
        assert!(lacks_jit(&refusal(libc::ENOTSUP, kfunc)));
        let objection = refusal(libc::EACCES, "R1 invalid mem access 'scalar'\n");
        assert!(!lacks_jit(&objection) && is_final(&objection));
        assert!(!is_final(&refusal(libc::ENOMEM, "")) && !is_final(&refusal(libc::EPERM, "")));
    }
}
