//! Attachments: one pinned link per interface and hook.

mod pinned;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as Mode,
};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_indextoname, if_nametoindex};

use self::pinned::{HOOKS, pin};
pub(super) use self::pinned::{attached, carried, forget_gone, program_ids};
use super::programs::{self, Programs};
use super::{HookChoice, XdpMode, interfaces, tags};
use crate::error::{AttachError, OpenError};
use crate::link::{xdp_program, xdp_program_id};
use crate::pins::Pins;
use crate::sys::{ethtool, links};

/// Drivers whose native XDP supports redirecting and multiple queues, as their documentation says.
const NATIVE_XDP: [&str; 17] = [
    "atlantic",
    "bnxt_en",
    "ena",
    "fsl_dpaa2_eth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "sfc",
    "virtio_net",
];

/// The driver of bonds. The kernel has their ports run a native program, which then sees the port that a frame came in through
/// instead of the bond, to which MAC, addresses and routes belong.
const BOND: &str = "bonding";

/// Which hook carries the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Native XDP.
    Xdp,
    /// TC (tcx) ingress.
    Tc,
    /// XDP behind the driver.
    GenericXdp,
}

/// An interface that the fast path is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The hook in use.
    pub hook: Hook,
}

/// How an interface was attached to.
#[derive(Debug)]
pub struct Placed {
    /// The hook in use.
    pub hook: Hook,
    /// Why it is not the one that `auto` prefers: the kernel refuses that one's program.
    pub refused: Option<AttachError>,
}

/// An interface as it is now.
struct Interface {
    name: String,
    index: u32,
    mac: [u8; 6],
}

/// The programs that an attachment is made of.
pub(super) struct Source<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) programs: &'a mut Programs,
    pub(super) pins: &'a Pins,
    /// Whether a program that is not there is loaded.
    pub(super) loads: bool,
}

impl Source<'_> {
    fn program(&mut self, interface: &Interface, hook: Hook) -> Result<&mut Program, AttachError> {
        let name = programs::of(hook);
        let found = if self.loads {
            self.programs.get(self.ebpf, self.pins, name).map(Some).map_err(Arc::new)
        } else {
            self.programs.find(self.pins, name)
        };
        let interface = || interface.name.clone();
        found
            .map_err(|source| AttachError::Load { interface: interface(), source })?
            .ok_or_else(|| AttachError::NotLoaded { interface: interface(), hook })
    }
}

pub(super) fn attach(
    mut from: Source<'_>,
    name: &str,
    choice: HookChoice,
) -> Result<Placed, AttachError> {
    let interface = find(name)?;
    let index = interface.index;
    forget_gone(from.ebpf, from.programs, from.pins);
    let noted = interfaces::note(from.ebpf, index, interface.mac).map_err(|source| {
        AttachError::Keep { interface: interface.name.clone(), source: io::Error::other(source) }
    });
    let mut done = noted.and_then(|()| attach_by(&mut from, &interface, choice));
    let Source { ebpf, pins, programs, .. } = from;
    match &done {
        Ok(_) => programs.remove_others(pins),
        Err(error) if may_come(error) => {}
        Err(_) => done = take_others_off(pins, &interface).and(done),
    }
    let is_at = |hook: &Hook| pin(pins, index, *hook).exists();
    if done.as_ref().is_ok_and(|placed| placed.hook != Hook::Tc) {
        tags::leave(pins, index, name);
    } else if ![Hook::Xdp, Hook::GenericXdp].iter().any(is_at) {
        tags::give_back(pins, index);
    }
    if done.is_err() && !HOOKS.iter().any(is_at) {
        interfaces::forget(ebpf, index);
    }
    done
}

/// The hooks that are tried, in this order.
pub(super) fn order(choice: HookChoice, driver: &str) -> &'static [Hook] {
    match choice {
        HookChoice::Xdp(XdpMode::Native) => &[Hook::Xdp],
        HookChoice::Xdp(XdpMode::Generic) => &[Hook::GenericXdp],
        HookChoice::Xdp(XdpMode::Auto) => &[Hook::Xdp, Hook::GenericXdp],
        HookChoice::Auto if NATIVE_XDP.contains(&driver) => &[Hook::Xdp, Hook::Tc],
        HookChoice::Auto | HookChoice::Tc => &[Hook::Tc],
    }
}

/// Whether the program may be there soon: until then what is attached is better than nothing, whoever's tables it has.
fn may_come(error: &AttachError) -> bool {
    match error {
        AttachError::NotLoaded { .. } => true,
        AttachError::Load { source, .. } => !is_final(source),
        AttachError::NoInterface(_)
        | AttachError::NotEthernet(_)
        | AttachError::Taken { .. }
        | AttachError::NoNativeXdp { .. }
        | AttachError::Refused { .. }
        | AttachError::Keep { .. } => false,
    }
}

fn is_final(error: &OpenError) -> bool {
    matches!(error, OpenError::Program { source, .. } if programs::is_final(source))
}

/// Whether another hook can do what this one could not.
fn is_left_to(next: Hook, error: &AttachError) -> bool {
    match error {
        AttachError::NoNativeXdp { .. } => true,
        AttachError::Taken { .. } => next == Hook::Tc,
        // What the host is short of now it may have soon.
        AttachError::Load { source, .. } => next == Hook::Tc && is_final(source),
        AttachError::NoInterface(_)
        | AttachError::NotEthernet(_)
        | AttachError::NotLoaded { .. }
        | AttachError::Refused { .. }
        | AttachError::Keep { .. } => false,
    }
}

/// At one hook, and at no other one.
fn attach_by(
    from: &mut Source<'_>,
    interface: &Interface,
    choice: HookChoice,
) -> Result<Placed, AttachError> {
    let mut refused = None;
    let mut hooks = order(choice, &driver(&interface.name)).iter().copied().peekable();
    let hook = loop {
        let hook = hooks.next().expect("what is left to no other hook is returned");
        let pins = from.pins;
        let tried = from.program(interface, hook);
        match tried.and_then(|program| attach_to(program, pins, interface, hook)) {
            Ok(hook) => break hook,
            Err(error) if hooks.peek().is_some_and(|next| is_left_to(*next, &error)) => {
                refused = Some(error).filter(|error| matches!(error, AttachError::Load { .. }));
            }
            Err(error) => return Err(error),
        }
    };
    // A packet that both hooks see would be translated twice.
    for other in HOOKS.into_iter().filter(|other| *other != hook) {
        let keep = |source| AttachError::Keep { interface: interface.name.clone(), source };
        links::take_off(&pin(from.pins, interface.index, other)).map_err(keep)?;
    }
    Ok(Placed { hook, refused })
}

/// Takes off what builds with other tables left: nobody writes those any more. One with ours works as before, and so does one
/// that cannot be looked at.
fn take_others_off(pins: &Pins, interface: &Interface) -> Result<(), AttachError> {
    let keep = |source| AttachError::Keep { interface: interface.name.clone(), source };
    let ours = programs::ids(pins).map_err(keep)?;
    let links = HOOKS.into_iter().map(|hook| pin(pins, interface.index, hook));
    let is_other =
        |link: &PathBuf| links::look_at(link).is_ok_and(|link| !ours.contains(&link.program));
    let mut others = links.filter(is_other);
    others.try_for_each(|link| links::take_off(&link)).map_err(keep)
}

pub(super) fn detach(
    ebpf: &mut Ebpf,
    programs: &Programs,
    pins: &Pins,
    name: &str,
) -> Result<(), AttachError> {
    let index = if_nametoindex(name).map_err(|_| AttachError::NoInterface(name.to_owned()))?;
    for hook in HOOKS {
        links::take_off(&pin(pins, index, hook))
            .map_err(|source| AttachError::Keep { interface: name.to_owned(), source })?;
    }
    tags::give_back(pins, index);
    interfaces::forget(ebpf, index);
    programs.remove_others(pins);
    Ok(())
}

fn attach_to(
    program: &mut Program,
    pins: &Pins,
    interface: &Interface,
    hook: Hook,
) -> Result<Hook, AttachError> {
    let path = pin(pins, interface.index, hook);
    let refused = |source: ProgramError| AttachError::Refused {
        interface: interface.name.clone(),
        source: Box::new(source),
    };
    if hook == Hook::Xdp && driver(&interface.name) == BOND {
        // One that an earlier version attached goes, too.
        let _none = links::take_off(&path);
        let on_ports = io::Error::other("a bond's ports would run it, as frames of theirs");
        return Err(xdp_error(interface, hook, on_ports.into()));
    }
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        match replace(program, pinned.into(), hook) {
            Ok(()) => return Ok(hook),
            // The interface went away and took the attachment along; its index is in use again.
            Err(error) if is_dead(&error) => links::take_off(&path).map_err(|source| {
                AttachError::Keep { interface: interface.name.clone(), source }
            })?,
            Err(error) => return Err(refused(error)),
        }
    }
    let link = match hook {
        Hook::Tc => attach_tc(program, interface).map_err(refused)?,
        Hook::Xdp | Hook::GenericXdp => attach_xdp(program, pins, interface, hook)?,
    };
    link.pin(&path).map_err(|e| AttachError::Keep {
        interface: interface.name.clone(),
        source: io::Error::other(e),
    })?;
    Ok(hook)
}

/// Puts our program into an attachment in place: no packet meets none.
fn replace(program: &mut Program, link: FdLink, hook: Hook) -> Result<(), ProgramError> {
    match hook {
        Hook::Tc => {
            let program: &mut SchedClassifier = program.try_into()?;
            let id = program
                .attach_to_link(SchedClassifierLink::try_from(link).map_err(io::Error::other)?)?;
            program.take_link(id).map(drop_fd)
        }
        Hook::Xdp | Hook::GenericXdp => {
            let program: &mut Xdp = program.try_into()?;
            let id = program.attach_to_link(XdpLink::try_from(link).map_err(io::Error::other)?)?;
            program.take_link(id).map(drop_fd)
        }
    }
}

/// Closes our descriptor of a link that is pinned, and so stays.
fn drop_fd<L>(link: L) {
    drop(link);
}

fn is_dead(error: &ProgramError) -> bool {
    os_error(error) == Some(libc::ENOLINK)
}

fn attach_tc(program: &mut Program, interface: &Interface) -> Result<FdLink, ProgramError> {
    let program: &mut SchedClassifier = program.try_into()?;
    // First in line: what we forward is none of the others' business, what we pass they all see.
    let attach = || {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options(&interface.name, TcAttachType::Ingress, order)
    };
    // Of others' programs there may be as many as they like: only the same one is refused.
    let id = attach_when_free(|error| os_error(error) == Some(libc::EEXIST), attach)?;
    Ok(program.take_link(id)?.try_into().map_err(io::Error::other)?)
}

fn attach_xdp(
    program: &mut Program,
    pins: &Pins,
    interface: &Interface,
    hook: Hook,
) -> Result<FdLink, AttachError> {
    let refused = |source| xdp_error(interface, hook, source);
    let program: &mut Xdp = program.try_into().map_err(refused)?;
    let (mode, other) = match hook {
        Hook::GenericXdp => (Mode::Skb, Hook::Xdp),
        Hook::Tc | Hook::Xdp => (Mode::Driver, Hook::GenericXdp),
    };
    // This one may be going from there, too: it was taken off a moment ago.
    let mut ours = vec![program.info().map_err(refused)?.id()];
    // An interface runs XDP in one way only: ours in the other one makes room.
    if let Ok(pinned) = PinnedLink::from_pin(pin(pins, interface.index, other)) {
        let keep = |source| AttachError::Keep { interface: interface.name.clone(), source };
        let unpinned = pinned.unpin().map_err(keep)?;
        ours.extend(unpinned.info().map(|info| info.program_id()));
        drop_fd(unpinned);
    }
    let ours_goes = |error: &ProgramError| {
        matches!(os_error(error), Some(libc::EBUSY | libc::EEXIST))
            && xdp_program_id(interface.index).is_none_or(|id| ours.contains(&id))
    };
    let id = attach_when_free(ours_goes, || program.attach_to_if_index(interface.index, mode));
    let id = id.map_err(refused)?;
    let link = program.take_link(id).map_err(refused)?;
    // An attachment by netlink, which aya falls back to, has no link: dropping it takes it off again.
    link.try_into().map_err(|e: LinkError| refused(io::Error::other(e).into()))
}

/// The kernel takes a program off some time after the last reference to its link is gone: while `ours_goes` says that it is
/// our own which is in the way, it is waited for.
fn attach_when_free<T>(
    ours_goes: impl Fn(&ProgramError) -> bool,
    mut attach: impl FnMut() -> Result<T, ProgramError>,
) -> Result<T, ProgramError> {
    const TRIES: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(10);
    let mut tried = attach();
    for _ in 1..TRIES {
        if !tried.as_ref().is_err_and(&ours_goes) {
            break;
        }
        thread::sleep(BETWEEN);
        tried = attach();
    }
    tried
}

fn xdp_error(interface: &Interface, hook: Hook, source: ProgramError) -> AttachError {
    match os_error(&source) {
        Some(libc::EBUSY | libc::EEXIST) => AttachError::Taken {
            interface: interface.name.clone(),
            name: xdp_program(interface.index),
        },
        _ if hook == Hook::GenericXdp => {
            AttachError::Refused { interface: interface.name.clone(), source: Box::new(source) }
        }
        _ => AttachError::NoNativeXdp {
            interface: interface.name.clone(),
            driver: driver(&interface.name),
            source: Box::new(source),
        },
    }
}

fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = current.source();
    }
    None
}

fn find(name: &str) -> Result<Interface, AttachError> {
    let index = if_nametoindex(name).map_err(|_| AttachError::NoInterface(name.to_owned()))?;
    let mac = getifaddrs()
        .ok()
        .and_then(|all| {
            all.filter(|a| a.interface_name == name).find_map(|a| a.address?.as_link_addr()?.addr())
        })
        .filter(|mac| *mac != [0; 6])
        .ok_or_else(|| AttachError::NotEthernet(name.to_owned()))?;
    Ok(Interface { name: name.to_owned(), index, mac })
}

/// The name of an interface, if there is one with this index. nix says that there is one, without a name, where there is
/// none.
pub(super) fn name_of(ifindex: u32) -> Option<String> {
    let name = if_indextoname(ifindex).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Of an interface.
pub(super) fn driver(interface: &str) -> String {
    ethtool::driver(interface).unwrap_or_else(|_| "(unknown)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(source: OpenError) -> AttachError {
        AttachError::Load { interface: "eth0".into(), source: source.into() }
    }

    fn by_kernel(errno: i32) -> AttachError {
        let verifier_log = aya_obj::VerifierLog::new(String::new());
        let io_error = io::Error::from_raw_os_error(errno);
        let source = Arc::new(ProgramError::LoadError { io_error, verifier_log });
        load(OpenError::Program { program: programs::XDP, source })
    }

    #[test]
    fn auto_tries_xdp_where_drivers_have_it_and_leaves_to_tc_what_that_can_do() {
        use Hook::{GenericXdp, Tc};
        for (choice, driver, hooks) in [
            (HookChoice::Auto, "ice", &[Hook::Xdp, Tc][..]),
            (HookChoice::Auto, "veth", &[Tc]),
            (HookChoice::Tc, "ice", &[Tc]),
            (HookChoice::Xdp(XdpMode::Native), "veth", &[Hook::Xdp]),
            (HookChoice::Xdp(XdpMode::Auto), "bridge", &[Hook::Xdp, GenericXdp]),
            (HookChoice::Xdp(XdpMode::Generic), "ice", &[GenericXdp]),
        ] {
            assert_eq!(order(choice, driver), hooks, "{choice:?} on {driver}");
        }
        let taken = AttachError::Taken { interface: "eth0".into(), name: None };
        assert!(is_left_to(Tc, &taken) && !is_left_to(GenericXdp, &taken));
        // What the verifier refuses it refuses for good; what there is no memory for is tried again.
        assert!(is_left_to(Tc, &by_kernel(libc::EACCES)));
        assert!(!is_left_to(GenericXdp, &by_kernel(libc::EACCES)), "the same program");
        assert!(!is_left_to(Tc, &by_kernel(libc::ENOMEM)));
        assert!(!is_left_to(Tc, &load(OpenError::NoJit)));
    }
}
