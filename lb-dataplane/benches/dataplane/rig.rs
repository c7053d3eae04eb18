//! A dataplane of the benchmark's own, its real programs loaded by its own loader, and packets that run through them.
//!
//! A test run hands each repetition the packet that the one before it left. Therefore a small program writes the next packet
//! over the frame and goes on, by tail call, with the program under test; the same around a program that does nothing is
//! measured in the same round and taken off, and with it the loop of the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::flow_table::FlowTable;
use lb_dataplane::mapped::Mapped;
use lb_dataplane::plan::Waiting;
use lb_dataplane::table::{Change, Table};
use lb_dataplane::{ClientPrefixes, Dataplane, Hook, Options, Reason, Sizes, Timeouts};
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::reason::INTERFACE_KNOWN;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::frames::{FRAME_LEN, FRAME6_LEN, Packet};
use crate::report::Series;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbd-bench.bpf.o"));

/// Bytes of a packet's slot, as the programs have it.
const SLOT: usize = 64;

/// What packets run through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The dataplane's program.
    Pipeline,
    /// The packet's key, and one lookup in the flow table.
    Lookup,
    /// The packet's key, put into the table that bare lookups are in.
    Fill,
    /// The packet's key, and by it the service, a word of its ring and the backend: for first packets of flows of IPv4.
    Choose,
    /// Nothing but room for another header, or for none.
    Move,
    /// Nothing.
    Nothing,
}

/// How a packet comes after another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turns {
    /// Over what the one before left, which is as long as it came.
    Over,
    /// The same, once that is made as long as this one is: it left longer or shorter.
    Moved,
    /// In a test run of its own: no program could undo what became of the one before.
    Apart,
}

pub(crate) struct Rig {
    pub(crate) dataplane: Dataplane,
    bench: Ebpf,
    packets: Mapped,
    next: Mapped,
    loaded: usize,
    /// Slots of a packet.
    slots: usize,
    turns: Turns,
    /// Bytes of the first packet.
    len: usize,
    /// Its ethertype.
    ethertype: [u8; 2],
    pub(crate) options: Options,
    pub(crate) flows: FlowTable<V4>,
    pub(crate) flows6: FlowTable<V6>,
    // Dropped last: the folder that the bpffs is mounted at.
    folder: TempDir,
}

impl Rig {
    /// Clients at 10.1.0.0/16 and fd01::/16, backends at 10.2.0.0/16 and fd02::/16. Room for so many packets at once.
    pub(crate) fn new(sizes: Sizes, packets: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lbd-bench-").tempdir()?;
        let timeouts = Timeouts::default();
        let pin_dir = folder.path().join("bpf");
        let options = Options {
            pin_dir,
            sizes,
            timeouts,
            client_prefixes: ClientPrefixes::default(),
            early_fragments_for: Duration::from_secs(2),
            sample_every: 0,
            redirect_to_peer: Vec::new(),
            record: false,
        };
        let mut dataplane = Dataplane::open(&options)?;
        dataplane.fib_apply(&routes())?;
        // The interface that test runs' packets come in through, as one is when it is attached.
        let known = INTERFACE_KNOWN.to_ne_bytes();
        let near = dataplane.map_mut("NEAR_IFACES").context("NEAR_IFACES")?;
        Array::<_, [u8; 8]>::try_from(near)?.set(1, [0, 0, 0, 0, 0, 0, known[0], known[1]], 0)?;

        let mut loader = EbpfLoader::new();
        for name in ["SERVICES", "RINGS", "BACKENDS"] {
            loader.map_pin_path(name, pin(&options, name)?);
        }
        let mut bench = loader
            .map_max_entries("PACKETS", u32::try_from(packets)?)
            .map_max_entries("BARE", sizes.flow_entries)
            .map_max_entries("BARE6", sizes.flow_entries6)
            .load(OBJECT)?;
        for name in [
            "tc_restore",
            "tc_restore6",
            "tc_restore_moved",
            "tc_nothing",
            "tc_lookup",
            "tc_lookup6",
            "tc_fill",
            "tc_fill6",
            "tc_choose",
            "tc_move",
        ] {
            let program: &mut SchedClassifier =
                bench.program_mut(name).context(name)?.try_into()?;
            program.load()?;
        }
        for name in [
            "xdp_restore",
            "xdp_restore6",
            "xdp_restore_moved",
            "xdp_nothing",
            "xdp_lookup",
            "xdp_lookup6",
            "xdp_choose",
            "xdp_move",
        ] {
            let program: &mut Xdp = bench.program_mut(name).context(name)?.try_into()?;
            program.load()?;
        }
        let (flows, flows6) =
            (flow_table(&mut dataplane, "FLOWS")?, flow_table(&mut dataplane, "FLOWS6")?);
        Ok(Self {
            flows,
            flows6,
            packets: map(&bench, "PACKETS", packets * SLOT)?,
            next: map(&bench, "NEXT_PACKET", 8)?,
            loaded: 0,
            slots: 1,
            turns: Turns::Over,
            len: FRAME_LEN,
            ethertype: [8, 0],
            dataplane,
            bench,
            options,
            folder,
        })
    }

    pub(crate) fn apply(&mut self, table: &Table) -> Result<()> {
        Ok(self.dataplane.apply(table)?)
    }

    /// Changes a part of the table; what waits for a grace period after it, if it is much.
    pub(crate) fn change(&mut self, change: &Change) -> Result<Option<Waiting>> {
        self.dataplane.change(change)?;
        Ok(self.dataplane.waiting())
    }

    /// What waited for a grace period has had one.
    pub(crate) fn passed(&mut self, waited: Waiting) {
        self.dataplane.passed(waited);
    }

    /// Takes these packets for the runs that follow, in this order and then from the first one again. All of them are
    /// equally long; one of IPv6 takes the room of two.
    pub(crate) fn load(&mut self, packets: impl IntoIterator<Item = Packet>) {
        self.fill(packets, Turns::Over);
    }

    /// Takes packets that leave longer or shorter, and are of any length: what one leaves behind is made what the next one
    /// needs, which costs nothing where they come by turns. Each takes the room of two.
    pub(crate) fn load_moved(&mut self, packets: impl IntoIterator<Item = Packet>) {
        self.fill(packets, Turns::Moved);
    }

    /// Takes packets of which each has a test run of its own, as few have.
    pub(crate) fn load_apart(&mut self, packets: impl IntoIterator<Item = Packet>) {
        self.fill(packets, Turns::Apart);
    }

    fn fill(&mut self, packets: impl IntoIterator<Item = Packet>, turns: Turns) {
        let mut packets = packets.into_iter().peekable();
        let first = packets.peek().map_or(&[0; FRAME_LEN][..], AsRef::as_ref);
        (self.len, self.ethertype) = (first.len(), [first[12], first[13]]);
        let longest = if turns == Turns::Moved { FRAME6_LEN } else { self.len };
        self.slots = longest.div_ceil(SLOT);
        self.turns = turns;
        self.loaded = 0;
        let room = self.packets.words().chunks_exact(self.slots * SLOT / 4);
        for (packet, slot) in packets.zip(room) {
            for (bytes, word) in packet.as_ref().chunks(4).zip(slot) {
                let mut whole = [0; 4];
                whole[..bytes.len()].copy_from_slice(bytes);
                word.store(u32::from_ne_bytes(whole), Relaxed);
            }
            self.loaded += 1;
        }
    }

    /// Runs so many packets; nanoseconds for each, restoring it included.
    pub(crate) fn run(&mut self, hook: Hook, target: Target, count: usize) -> Result<f64> {
        self.aim(hook, target)?;
        let next = self.next.words();
        next[0].store(0, Relaxed);
        next[1].store(u32::try_from(self.loaded * self.slots)?, Relaxed);
        let name = match (hook, self.turns, self.slots) {
            (Hook::Tc, Turns::Moved, _) => "tc_restore_moved",
            (Hook::Tc, Turns::Over | Turns::Apart, 1) => "tc_restore",
            (Hook::Tc, Turns::Over | Turns::Apart, _) => "tc_restore6",
            (Hook::Xdp | Hook::GenericXdp, Turns::Moved, _) => "xdp_restore_moved",
            (Hook::Xdp | Hook::GenericXdp, Turns::Over | Turns::Apart, 1) => "xdp_restore",
            (Hook::Xdp | Hook::GenericXdp, Turns::Over | Turns::Apart, _) => "xdp_restore6",
        };
        let (cost, returned) = if self.turns == Turns::Apart {
            let mut costs = Series::default();
            let mut returned = 0;
            for _ in 0..count {
                let (cost, value) = self.test_run(hook, name, 1)?;
                costs.push(cost);
                returned = value;
            }
            (costs.median(), returned)
        } else {
            self.test_run(hook, name, count)?
        };
        let place = self.next.words()[0].load(Relaxed) as usize / self.slots;
        ensure!(place == count % self.loaded, "{name} stopped at packet {place} of {count}");
        let failed = match target {
            Target::Lookup | Target::Fill => "the last packet's flow is not in the table",
            Target::Choose => "the last packet has no backend",
            Target::Move => "the kernel makes no room for the other header",
            Target::Pipeline | Target::Nothing => "",
        };
        ensure!(failed.is_empty() || returned == 1, "{failed}");
        Ok(cost)
    }

    /// Nanoseconds for each packet, and what the program returned for the last one.
    fn test_run(&self, hook: Hook, name: &str, count: usize) -> Result<(f64, u32)> {
        // A test run at TC takes the family from the frame.
        let mut frame = [0; FRAME6_LEN];
        frame[12..14].copy_from_slice(&self.ethertype);
        let options = TestRunOptions {
            data_in: Some(&frame[..self.len]),
            repeat: u32::try_from(count)?,
            ..TestRunOptions::new()
        };
        let program = self.bench.program(name).context("no such program")?;
        let result = if hook == Hook::Tc {
            <&SchedClassifier>::try_from(program)?.test_run(options)?
        } else {
            <&Xdp>::try_from(program)?.test_run(options)?
        };
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    /// Runs every loaded packet so many times through the dataplane, and makes sure that each ended as it should.
    pub(crate) fn expect(
        &mut self,
        hook: Hook,
        times: usize,
        expected: &[(Reason, usize)],
    ) -> Result<f64> {
        let before = self.ends()?;
        let cost = self.run(hook, Target::Pipeline, times * self.loaded)?;
        let mut after = self.ends()?;
        for (reason, count) in &mut after {
            *count -= before.get(reason).copied().unwrap_or(0);
        }
        after.retain(|_, count| *count != 0);
        let expected: BTreeMap<Reason, usize> =
            expected.iter().map(|(reason, share)| (*reason, share * times)).collect();
        ensure!(after == expected, "{hook:?}: packets ended as {after:?} instead of {expected:?}");
        Ok(cost)
    }

    fn ends(&self) -> Result<BTreeMap<Reason, usize>> {
        let counts = self.dataplane.reasons()?;
        Ok(counts.iter().map(|c| (c.reason, c.packets as usize)).collect())
    }

    fn aim(&mut self, hook: Hook, target: Target) -> Result<()> {
        let is_v6 = self.ethertype == [0x86, 0xdd];
        let own = match (hook, target) {
            (_, Target::Pipeline) => None,
            (Hook::Tc, Target::Lookup) if is_v6 => Some("tc_lookup6"),
            (Hook::Tc, Target::Lookup) => Some("tc_lookup"),
            (_, Target::Fill) if is_v6 => Some("tc_fill6"),
            (_, Target::Fill) => Some("tc_fill"),
            (Hook::Tc, Target::Choose) => Some("tc_choose"),
            (Hook::Tc, Target::Move) => Some("tc_move"),
            (Hook::Tc, Target::Nothing) => Some("tc_nothing"),
            (Hook::Xdp | Hook::GenericXdp, Target::Lookup) if is_v6 => Some("xdp_lookup6"),
            (Hook::Xdp | Hook::GenericXdp, Target::Lookup) => Some("xdp_lookup"),
            (Hook::Xdp | Hook::GenericXdp, Target::Choose) => Some("xdp_choose"),
            (Hook::Xdp | Hook::GenericXdp, Target::Move) => Some("xdp_move"),
            (Hook::Xdp | Hook::GenericXdp, Target::Nothing) => Some("xdp_nothing"),
        };
        let program = match own {
            None => self.dataplane.program(hook)?,
            Some(name) => self.bench.program(name).context("no such program")?,
        };
        let program: ProgramFd = program.fd()?.try_clone()?;
        let name = if hook == Hook::Tc { "TC_TARGET" } else { "XDP_TARGET" };
        let map = self.bench.map_mut(name).context(name)?;
        ProgramArray::try_from(map)?.set(0, &program, 0)?;
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The mount goes with its last user; a folder that is busy stays behind, empty.
        let _ = umount2(&self.options.pin_dir, MntFlags::MNT_DETACH);
        let _ = &self.folder;
    }
}

fn flow_table<A: Family>(dataplane: &mut Dataplane, name: &'static str) -> Result<FlowTable<A>> {
    let Some(Map::Array(array)) = dataplane.map_mut(name) else { bail!("{name} is no array") };
    Ok(FlowTable::map(array.fd(), array.info()?.max_entries())?)
}

/// Where a map is pinned.
pub(crate) fn pin(options: &Options, map: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(&options.pin_dir)? {
        let path = entry?.path().join("maps").join(map);
        if path.exists() {
            return Ok(path);
        }
    }
    bail!("{map} is pinned nowhere")
}

fn routes() -> Vec<FibUpdate> {
    let member = |side: u8| Member {
        ifindex: u32::from(side),
        source_mac: [2, 0, 0, 0, 0, side],
        destination_mac: Some([2, 0, 0, 0, 1, side]),
        gateway: None,
        mtu: 1500,
        weight: 1,
    };
    let group = |id, side| FibUpdate::Group { id, action: Action::Forward(vec![member(side)]) };
    let route =
        |second, group| FibUpdate::Route { prefix: [10, second, 0, 0].into(), len: 16, group };
    let route6 = |side: u16, group| {
        let prefix = [0xfd00 + side, 0, 0, 0, 0, 0, 0, 0].into();
        FibUpdate::Route { prefix, len: 16, group }
    };
    vec![group(1, 7), group(2, 8), route(1, 1), route(2, 2), route6(1, 1), route6(2, 2)]
}

fn map(ebpf: &Ebpf, name: &str, bytes: usize) -> Result<Mapped> {
    let Map::Array(data) = ebpf.map(name).context("no such map")? else {
        bail!("{name} is no array")
    };
    Ok(Mapped::map(data.fd().as_fd(), bytes)?)
}
