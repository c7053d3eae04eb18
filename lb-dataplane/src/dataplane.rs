//! The dataplane as its user sees it: open, attach, apply, count, age.

mod age;
mod answers;
mod apply;
mod attach;
mod clients;
mod count;
mod counters;
mod direct;
mod early;
mod flow_events;
mod flow_filter;
mod flows;
mod free_ports;
mod host_routes;
mod interfaces;
mod kept;
mod memory;
mod object;
mod one_arm;
mod open;
mod options;
mod programs;
mod punts;
mod routes;
mod tags;
mod vlans;
mod ways_out;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use lb_dataplane_common::tables::Record;

pub use self::age::{AGE_BATCH, AgePart, Aged};
use self::attach::Source;
pub use self::attach::{Attached, Hook, Placed};
pub use self::count::{BackendCount, Passed, ReasonCount, ServiceCount, ServiceCounters};
pub use self::early::EarlyFragments;
pub use self::flow_events::{FlowEnd, FlowEvent, FlowEvents, HowEnded};
pub use self::flow_filter::{Flow, FlowFilter, FlowState};
pub use self::flows::FlowPlace;
use self::host_routes::HostRoutes;
use self::memory::Memory;
use self::one_arm::OneArm;
pub use self::open::clean;
pub use self::options::{ClientPrefixes, HookChoice, Options, Sizes, XdpMode};
use self::programs::Programs;
pub use self::programs::{Load, Loaded};
pub use self::punts::Punts;
pub use self::vlans::{Vlan, cramped};
use self::ways_out::WaysOut;
use crate::error::{ApplyError, AttachError, OpenError, ReadError};
use crate::fib::{Action, Audit, Fib, FibError, FibLookup, FibRoute, FibUpdate, FibUsage, Packet};
use crate::held::HeldCounts;
use crate::pins::Pins;
use crate::plan::{self, Served};
use crate::table::{Change, ServiceKey, Table};

/// The dataplane of this host: programs and maps in the kernel, pinned so that they outlive the process.
///
/// Dropping it changes nothing in the kernel; [`Dataplane::destroy`] does.
pub struct Dataplane {
    ebpf: Ebpf,
    pins: Pins,
    programs: Programs,
    adopted: bool,
    served: Served,
    memory: Memory,
    one_arm: OneArm,
    host_routes: HostRoutes,
    fib: Fib,
    scan: age::Scan,
    /// Fragments that came early: how many may be kept, and what became of them.
    early_fragments: (u32, Duration),
    held: Arc<Mutex<HeldCounts>>,
    ways_out: WaysOut,
}

impl Dataplane {
    /// Takes the maps that are pinned under `options.pin_dir` or, where there are none, makes new ones.
    ///
    /// Attached interfaces keep running what they ran until [`Dataplane::attach`] is called for them, which loads the program
    /// of its hook unless it is there: from an earlier call, or pinned by a process of the same build and options.
    ///
    /// # Errors
    ///
    /// Everything that the kernel may lack or refuse, and pinned maps of other sizes.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        open::open(options)
    }

    /// Whether the maps were there already: flows, services and routes of the process before this one.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Attaches the fast path to an interface, or brings what is attached there up to date without a gap: the program is
    /// replaced in place. Where that fails, what an earlier build attached stays if it has the same tables, or if the program may
    /// be loaded later; otherwise it is taken off.
    ///
    /// # Errors
    ///
    /// No such interface, another XDP program there, a driver without native XDP where it was asked for, or a program that the
    /// kernel refuses.
    pub fn attach(&mut self, ifname: &str, choice: HookChoice) -> Result<Hook, AttachError> {
        self.attach_by(ifname, choice, true).map(|placed| placed.hook)
    }

    /// The same where the program is loaded, for whoever has that done beside other calls: it takes tenths of a second.
    ///
    /// # Errors
    ///
    /// [`AttachError::NotLoaded`], with which nothing is changed: [`Dataplane::to_load`] says what is to be done. Others as for
    /// [`Dataplane::attach`].
    pub fn attach_loaded(
        &mut self,
        ifname: &str,
        choice: HookChoice,
    ) -> Result<Placed, AttachError> {
        self.attach_by(ifname, choice, false)
    }

    fn attach_by(
        &mut self,
        ifname: &str,
        choice: HookChoice,
        loads: bool,
    ) -> Result<Placed, AttachError> {
        let Self { ebpf, programs, pins, .. } = self;
        let placed = attach::attach(Source { ebpf, programs, pins, loads }, ifname, choice)?;
        if placed.hook == Hook::Xdp {
            self.ways_out.with_xdp();
            self.fib.set_ways_out(&self.ways_out.look_at(self.fib.interfaces()));
        }
        Ok(placed)
    }

    /// What the fast path is attached to in this network namespace, by interface index, from this process or earlier ones.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        attach::attached(&self.pins)
    }

    /// Of these the interfaces whose packets meet the tables of this dataplane, by index: all but those that run a program that
    /// another build left with tables of its own.
    ///
    /// # Errors
    ///
    /// What is attached cannot be looked at.
    pub fn carried(&self) -> io::Result<BTreeSet<u32>> {
        attach::carried(&self.pins)
    }

    /// Lets go of attachments whose interfaces are gone, and of what only these kept.
    pub fn forget_gone(&mut self) {
        attach::forget_gone(&mut self.ebpf, &self.programs, &self.pins);
    }

    /// Takes the fast path off an interface; nothing happens where it is not attached.
    ///
    /// # Errors
    ///
    /// The link's pin could not be removed.
    pub fn detach(&mut self, ifname: &str) -> Result<(), AttachError> {
        attach::detach(&mut self.ebpf, &self.programs, &self.pins, ifname)
    }

    /// Takes everything out of the kernel: attachments, programs, flows, tables.
    ///
    /// # Errors
    ///
    /// A pin could not be removed.
    pub fn destroy(self) -> Result<(), OpenError> {
        self.pins.remove_links()?;
        // Not before: a program that is still there would take a VLAN's frames for untagged ones.
        tags::give_all_back(&self.pins);
        drop(self.ebpf);
        self.pins.destroy()
    }

    /// Makes the service maps say what the table says. TCP's flows go on where they went: a backend or service that is gone
    /// gets no new ones, and its old ones stay until they end or fall silent. UDP's end with the next scan of
    /// [`Dataplane::age`], and so do those of a failed backend whose service says so.
    ///
    /// # Errors
    ///
    /// The table asks for more than the maps hold; a map cannot be written.
    pub fn apply(&mut self, table: &Table) -> Result<(), ApplyError> {
        let (resolved, one_arm) =
            OneArm::of(table, &mut self.host_routes, &|to| self.fib.towards(to));
        let plan = |served: &mut Served| served.plan(&resolved);
        apply::carry_out(&mut self.ebpf, &mut self.memory, &mut self.served, plan)?;
        self.one_arm = one_arm;
        Ok(())
    }

    /// Changes what the service maps say, at the cost of what changes; else as [`Dataplane::apply`] of the whole table.
    ///
    /// # Errors
    ///
    /// As for [`Dataplane::apply`].
    pub fn change(&mut self, change: &Change) -> Result<(), ApplyError> {
        let resolved = OneArm::resolve(change, &mut self.host_routes, &|to| self.fib.towards(to));
        let plan = |served: &mut Served| served.change(&resolved);
        apply::carry_out(&mut self.ebpf, &mut self.memory, &mut self.served, plan)?;
        self.one_arm.keep(change, &resolved);
        Ok(())
    }

    /// What of the maps waits for a grace period, if it is much: whoever waits for one beside the changes
    /// ([`host::grace_period`](crate::host::grace_period)) and then tells [`Dataplane::passed`] spares them that.
    #[must_use]
    pub fn waiting(&self) -> Option<plan::Waiting> {
        self.served.waiting()
    }

    /// A grace period is over that began after this was asked for.
    pub fn passed(&mut self, waited: plan::Waiting) {
        self.served.passed(waited);
        kept::settle_or_say(&mut self.ebpf, &self.memory, &mut self.served);
    }

    /// Holds the maps of services, backends and rings against what is served, entry by entry; with `repair`, what differs is
    /// written again. Packets do not notice.
    ///
    /// # Errors
    ///
    /// A map cannot be read or written.
    pub fn audit(&mut self, repair: bool) -> Result<plan::Audit, ApplyError> {
        apply::audit(&mut self.ebpf, &mut self.memory, &mut self.served, repair)
    }

    /// Follows the routes with the addresses that flows of one-arm services and tunnels come from, and with which backends get
    /// packets of clients at all; cheap if there are no such services. Flows keep what they began with. Asks the kernel to find
    /// the MACs of backends that answer clients themselves, and again which ways out take frames from XDP.
    ///
    /// For the services whose turn it is, a few milliseconds' work, so that other calls come between; whether there are more.
    ///
    /// # Errors
    ///
    /// As for [`Dataplane::apply`].
    pub fn follow_routes(&mut self) -> Result<bool, ApplyError> {
        let towards = |address| self.fib.towards(address);
        if self.one_arm.begins() {
            self.one_arm.tell();
            self.one_arm.find_neighbours(&towards);
            self.host_routes.begin_round();
        }
        let (moved, is_more) = self.one_arm.moved(&mut self.host_routes, &towards);
        moved.map_or(Ok(()), |change| self.change(&change))?;
        Ok(is_more)
    }

    /// Backends that get no new flows, whatever their health, since there is no way to them as their service's mode needs one.
    #[must_use]
    pub const fn unreached(&self) -> &BTreeSet<(ServiceKey, IpAddr)> {
        self.one_arm.unreached()
    }

    /// Takes in the MACs of interfaces that the programs are attached to: frames to them are for this host.
    ///
    /// # Errors
    ///
    /// A fault of the map.
    pub fn note_macs(&mut self, macs: &BTreeMap<u32, [u8; 6]>) -> Result<(), ApplyError> {
        answers::note_macs(&mut self.ebpf, macs)
    }

    /// Has the programs answer who asks the links of interfaces for the MACs of these VIPs, also while no process runs; with
    /// `exactly` of no others.
    ///
    /// # Errors
    ///
    /// More than [`MAX_ANSWERS`](crate::MAX_ANSWERS), or a fault of the map; some are answered then.
    pub fn answer_for(
        &mut self,
        vips: &BTreeSet<(u32, IpAddr)>,
        exactly: bool,
    ) -> Result<(), ApplyError> {
        answers::set(&mut self.ebpf, vips, exactly)
    }

    /// Changes routes and next-hop groups, in this order. What is refused leaves no trace, and the rest is done.
    ///
    /// # Errors
    ///
    /// The first refusal.
    pub fn fib_apply(&mut self, updates: &[FibUpdate]) -> Result<(), FibError> {
        let found = self.ways_out.look_at(self.fib.led_through(updates).into_iter());
        self.fib.set_ways_out(&found);
        self.fib.apply(updates)
    }

    /// Whether there is room for one route more, to somewhere new; where there is not, that counts as a refusal.
    ///
    /// # Errors
    ///
    /// What is full.
    pub fn fib_room_for(&mut self, prefix: IpAddr, len: u8) -> Result<(), FibError> {
        self.fib.room_for(prefix, len)
    }

    /// Ends the time after a restart in which routes of the process before this one are kept: those that were not added
    /// again since are gone.
    pub fn fib_synced(&mut self) {
        self.fib.synced();
    }

    /// The routes in order, those after one at most `limit`, read back from the tables that packets read.
    #[must_use]
    pub fn fib_routes(&self, after: Option<(IpAddr, u8)>, limit: usize) -> Vec<FibRoute> {
        self.fib.routes(after, limit)
    }

    /// What a packet meets, found in the tables that packets read: of a flow's first direction, as the packet path sees it.
    #[must_use]
    pub fn fib_lookup(&self, packet: &Packet) -> FibLookup {
        routes::lookup(&self.fib, packet)
    }

    /// Holds the tables that packets read against the routes, address by address; with `repair`, what differs is written
    /// again. Takes about half a second and 100 MB with a million routes; packets do not notice.
    pub fn fib_audit(&mut self, repair: bool) -> Audit {
        self.fib.audit(repair)
    }

    /// Every route with its group, in no particular order.
    pub fn fib_table(&self) -> impl Iterator<Item = (IpAddr, u8, u32)> + '_ {
        self.fib.table()
    }

    /// Every next-hop group.
    pub fn fib_groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.fib.groups()
    }

    /// What packets to a group of [`Dataplane::fib_table`] meet, read back from the tables that they read.
    #[must_use]
    pub fn fib_action(&self, group: u32) -> Option<Action> {
        self.fib.action(group)
    }

    /// Routes and next-hop groups that the FIB has no room for: their packets go to the kernel.
    #[must_use]
    pub fn fib_left_out(&self) -> usize {
        self.fib.left_out()
    }

    /// What of the FIB's memory is in use.
    #[must_use]
    pub fn fib_usage(&self) -> FibUsage {
        self.fib.usage()
    }

    /// Packets by how they ended, in the order of [`Reason::ALL`](crate::Reason::ALL), zeroes included.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn reasons(&self) -> Result<Vec<ReasonCount>, ReadError> {
        counters::all_reasons(&self.ebpf)
    }

    /// The same by the interface that they came in through, of those that the fast path is attached to: 63 of them at most,
    /// with an index below 4,096; what came in through others counts only above.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn interface_reasons(&self) -> Result<BTreeMap<u32, Vec<ReasonCount>>, ReadError> {
        let mut counts = counters::reasons(&self.ebpf)?;
        let places = interfaces::places(&self.ebpf)?;
        let of = |(ifindex, place): (u32, usize)| {
            Some((ifindex, std::mem::take(counts.get_mut(place)?)))
        };
        Ok(places.into_iter().filter_map(of).collect())
    }

    /// Packets, bytes and flows of each service and its backends.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn service_counters(&self) -> Result<ServiceCounters, ReadError> {
        counters::services(&self.ebpf, &self.memory, &self.served, self.served.idents())
    }

    /// Those of one service; none where it is not served.
    ///
    /// # Errors
    ///
    /// As for [`Dataplane::service_counters`].
    pub fn counters_of(&self, key: &ServiceKey) -> Result<ServiceCounters, ReadError> {
        counters::services(&self.ebpf, &self.memory, &self.served, self.served.ident(key))
    }

    /// Some flows, at most `limit`, in no particular order.
    #[must_use]
    pub fn flows(&self, limit: usize) -> Vec<Flow> {
        self.flow_page(FlowPlace::default(), limit, &FlowFilter::default()).0
    }

    /// The flows from a place on, at most `limit`, and the place after them; `None` at the end. A flow that is there all the
    /// time is on exactly one page, whatever others begin and end meanwhile. Of all flows a page costs what it has, and one
    /// that is not the last has at least one. It looks at 16,384 entries of the tables at most, and of some flows may have none.
    #[must_use]
    pub fn flow_page(
        &self,
        from: FlowPlace,
        limit: usize,
        filter: &FlowFilter,
    ) -> (Vec<Flow>, Option<FlowPlace>) {
        flows::page(&self.memory, from, limit, filter)
    }

    /// Looks at the next part of the flow table, [`AGE_BATCH`] entries, and removes the flows that have been silent for
    /// longer than their protocol, state and service allow, and those that end with their backend. The caller sends the RSTs.
    ///
    /// # Errors
    ///
    /// The map cannot be read, or the ageing program cannot be run. Where it removed flows before, that is in [`Aged::failed`].
    pub fn age(&mut self) -> Result<Aged, ReadError> {
        let part = self.begin_age()?;
        let over = if part.waits() { crate::host::grace_period() } else { Ok(()) };
        Ok(self.end_age(part, over))
    }

    /// The first half of [`Dataplane::age`], for whoever waits for the grace period beside other calls, which takes tens of
    /// milliseconds: where it [waits](AgePart::waits), [`Dataplane::end_age`] comes after one.
    ///
    /// # Errors
    ///
    /// As for [`Dataplane::age`].
    pub fn begin_age(&mut self) -> Result<AgePart, ReadError> {
        let tables = (&self.served, &self.memory);
        age::begin(&mut self.ebpf, &self.programs, tables, &mut self.scan)
    }

    /// The second half; `over` is how the grace period went. What is not removed now is with the next scan.
    pub fn end_age(&mut self, part: AgePart, over: io::Result<()>) -> Aged {
        age::end(&self.programs, part, over)
    }

    /// Packets whose senders are to be told of their end; `None` if somebody has them already.
    ///
    /// # Errors
    ///
    /// The ring cannot be mapped.
    pub fn take_punts(&mut self) -> Result<Option<Punts>, ReadError> {
        punts::take(&mut self.ebpf)
    }

    /// What happens to flows that are watched; `None` if somebody has it already.
    ///
    /// # Errors
    ///
    /// The ring cannot be mapped.
    pub fn take_flow_events(&mut self) -> Result<Option<FlowEvents>, ReadError> {
        flow_events::take(&mut self.ebpf)
    }

    /// How many such events were lost since the tables were made: nobody read them in time, or too many flows were watched.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn flow_events_lost(&self) -> Result<u64, ReadError> {
        counters::flow_events_lost(&self.ebpf)
    }

    /// What became of the last packet, where [`Options::record`] asked for it.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn record(&self) -> Result<Record, ReadError> {
        counters::record(&self.ebpf)
    }

    /// A map by its name, to look into it or to set a scene.
    #[must_use]
    pub fn map_mut(&mut self, name: &str) -> Option<&mut Map> {
        self.ebpf.map_mut(name)
    }
}
