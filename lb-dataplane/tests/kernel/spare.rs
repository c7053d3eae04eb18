//! Dataplanes that scenes of the same process use one after the other: the verifier takes a second for a program, and emptying all
//! maps a twentieth of that.

#![expect(unsafe_code, reason = "maps of any kind are emptied by the system call itself")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use aya::maps::{Map, MapData, MapInfo, MapType, RingBuf};
use lb_dataplane::Options;
use lb_dataplane::flow_table::FlowTable;
use lb_dataplane_common::family::{Family, V4, V6};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

/// Those that wait for the next scene, the oldest first.
static SPARE: Mutex<Vec<(Options, Home)>> = Mutex::new(Vec::new());

/// How many wait at most; beyond, the oldest goes.
const MAX_SPARE: usize = 6;

/// What happens to those that wait, under a lock that no panic of another test spoils: they are whole at any time.
fn with_spare<T>(work: impl FnOnce(&mut Vec<(Options, Home)>) -> T) -> T {
    work(&mut SPARE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Nothing drops a static: what waits goes when the process ends.
fn drop_at_exit() {
    extern "C" fn drop_all() {
        drop(with_spare(std::mem::take));
    }
    static ONCE: Once = Once::new();
    // SAFETY: the function takes and returns nothing, and is there as long as the process.
    ONCE.call_once(|| assert_eq!(unsafe { libc::atexit(drop_all) }, 0));
}

/// A folder with the bpffs of a dataplane.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("lbd-kernel-test-").tempdir().unwrap();
        Self { folder }
    }

    pub(crate) fn pin_dir(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that failed early may not have mounted it.
        let _ = umount2(&self.pin_dir(), MntFlags::MNT_DETACH);
    }
}

/// A home for a dataplane of these options, its path put into them: that of an earlier scene with empty maps, or a new one.
pub(crate) fn take(options: &mut Options) -> Home {
    let spare = with_spare(|all| {
        let fits = |(of, home): &(Options, Home)| {
            *of == Options { pin_dir: home.pin_dir(), ..options.clone() }
        };
        all.iter().position(fits).map(|place| all.remove(place).1)
    });
    let home = spare.unwrap_or_else(Home::new);
    options.pin_dir = home.pin_dir();
    home
}

/// Keeps a home for the next scene, empty, unless something of it is attached.
pub(crate) fn keep(options: &Options, home: Home) {
    let is_attached = fs::read_dir(home.pin_dir().join("links")).unwrap().next().is_some();
    if is_attached {
        return;
    }
    let layouts = fs::read_dir(home.pin_dir()).unwrap().map(|entry| entry.unwrap().path());
    let maps: Vec<_> =
        layouts.map(|layout| layout.join("maps")).filter(|maps| maps.exists()).collect();
    let [maps] = &maps[..] else { return };
    fs::read_dir(maps).unwrap().for_each(|entry| empty(&entry.unwrap().path()));
    drop_at_exit();
    let oldest = with_spare(|all| {
        all.push((options.clone(), home));
        (all.len() > MAX_SPARE).then(|| all.remove(0))
    });
    drop(oldest);
}

fn empty(pin: &Path) {
    let map = MapInfo::from_pin(pin).unwrap();
    match map.map_type().unwrap() {
        MapType::RingBuf => {
            let map = Map::RingBuf(MapData::from_pin(pin).unwrap());
            let mut ring = RingBuf::try_from(map).unwrap();
            while ring.next().is_some() {}
        }
        // Its seed stays, which the programs have been loaded with.
        MapType::Array if pin.ends_with("FLOWS") => clear_flows::<V4>(&map),
        MapType::Array if pin.ends_with("FLOWS6") => clear_flows::<V6>(&map),
        MapType::Array => clear(&map, map.value_size() as usize),
        MapType::PerCpuArray => {
            let cpus = aya::util::nr_cpus().unwrap();
            clear(&map, map.value_size().next_multiple_of(8) as usize * cpus);
        }
        MapType::Hash | MapType::LruHash | MapType::LpmTrie => delete_all(&map),
        other => panic!("{other:?} is emptied how?"),
    }
}

/// `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    fd: u32,
    key: u64,
    next: u64,
    flags: u64,
}

/// The same for many.
#[repr(C)]
#[derive(Default)]
struct Batch {
    first: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

const LOOKUP: i64 = 1;
const DELETE: i64 = 3;
const NEXT_KEY: i64 = 4;
const UPDATE_BATCH: i64 = 26;

/// A command to the kernel.
pub(crate) fn bpf<A>(command: i64, attributes: &mut A) -> io::Result<()> {
    // SAFETY: the attributes are as the command has them, and the buffers that they name outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The ids of the programs that a pinned array of them holds.
pub(crate) fn programs_of(pin: &Path) -> Vec<u32> {
    let array = MapInfo::from_pin(pin).unwrap();
    let (_open, fd) = fd(&array);
    let id = |place: u32| {
        let mut id = 0_u32;
        let (key, next) = (&raw const place as u64, &raw mut id as u64);
        bpf(LOOKUP, &mut Element { fd, key, next, flags: 0 }).ok().map(|()| id)
    };
    (0..array.max_entries()).filter_map(id).collect()
}

fn fd(map: &MapInfo) -> (aya::maps::MapFd, u32) {
    let fd = map.fd().unwrap();
    let number = fd.as_fd().as_raw_fd().cast_unsigned();
    (fd, number)
}

fn clear(map: &MapInfo, value_size: usize) {
    const BYTES: usize = 1 << 20;
    let (_open, fd) = fd(map);
    let values = vec![0_u8; BYTES.max(value_size)];
    let at_once = u32::try_from(values.len() / value_size).unwrap();
    let mut first = 0;
    while first < map.max_entries() {
        let count = at_once.min(map.max_entries() - first);
        let keys: Vec<u32> = (first..first + count).collect();
        let (keys, values) = (keys.as_ptr() as u64, values.as_ptr() as u64);
        bpf(UPDATE_BATCH, &mut Batch { keys, values, count, fd, ..Batch::default() }).unwrap();
        first += count;
    }
}

fn clear_flows<A: Family>(map: &MapInfo) {
    let table = FlowTable::<A>::map(map.fd().unwrap(), map.max_entries()).unwrap();
    let seed = table.own_seed();
    clear(map, map.value_size() as usize);
    table.set_seed(seed);
}

fn delete_all(map: &MapInfo) {
    let (_open, fd) = fd(map);
    let mut key = vec![0_u8; map.key_size() as usize];
    let next = key.as_mut_ptr() as u64;
    while bpf(NEXT_KEY, &mut Element { fd, key: 0, next, flags: 0 }).is_ok() {
        match bpf(DELETE, &mut Element { fd, key: next, next: 0, flags: 0 }) {
            // An LRU table may have given it up meanwhile.
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }
}
