//! Attaches the fast path to interfaces as they appear, and takes it off those that are no longer configured.

mod following;
mod standing;
mod vlans;

use std::collections::BTreeMap;
use std::time::Duration;

use lb_api_types::config;
use lb_dataplane::{AttachError, Attached, HookChoice, Load, Placed, XdpMode};
use lb_routing::{Controller, Link};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::following::Following;
pub(super) use self::standing::Lacking;
pub(super) use self::vlans::handled_by;
use super::dataplane::{DataplaneHandle, Owned, sentence};

/// How often an interface that refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What was attached to: an interface that got another name or MAC is attached to anew.
type Done = BTreeMap<u32, (String, [u8; 6])>;

/// What interfaces that are attached to are not attached to as they should be for, in a sentence.
type Refused = BTreeMap<u32, String>;

/// Programs that an attachment has to have loaded at most: each hook's that there is.
const PROGRAMS: usize = 2;

/// Ports of ports at most, as the kernel has it.
const NESTED: usize = 8;

/// A step towards what is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Attach(Link),
    /// Name, and why.
    Detach(String, &'static str),
}

impl Step {
    /// Of what is to be attached to.
    const fn ifindex(&self) -> Option<u32> {
        match self {
            Self::Attach(link) => Some(link.ifindex),
            Self::Detach(..) => None,
        }
    }
}

/// Where the fast path is, as far as it matters to others.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Whether clients may be led here: it is on an interface, and on every one that it is to be on.
    pub(super) attached: watch::Receiver<bool>,
    /// Those that it is to be on, and is not.
    pub(super) lacking: watch::Receiver<Vec<Lacking>>,
    /// What is not as configured.
    pub(super) troubles: watch::Receiver<Vec<Trouble>>,
}

/// Something that is not as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The index of the interface that it is about, where it is about one.
    pub(super) of: Option<u32>,
    /// One sentence.
    pub(super) said: String,
}

impl Trouble {
    fn any(said: String) -> Self {
        Self { of: None, said }
    }
}

/// Follows the host's links.
pub(super) fn spawn(
    links: watch::Receiver<Vec<Link>>,
    dataplane: DataplaneHandle,
    config: config::Dataplane,
) -> Attachment {
    let (attached_tx, attached) = watch::channel(false);
    let (lacking_tx, lacking) = watch::channel(Vec::new());
    let (troubles_tx, troubles) = watch::channel(Vec::new());
    let told = Told { attached: attached_tx, lacking: lacking_tx, troubles: troubles_tx };
    tokio::spawn(follow(links, dataplane, config, told));
    Attachment { attached, lacking, troubles }
}

/// Where others hear of an [`Attachment`].
struct Told {
    attached: watch::Sender<bool>,
    lacking: watch::Sender<Vec<Lacking>>,
    troubles: watch::Sender<Vec<Trouble>>,
}

impl Told {
    /// Tells what is another than before, and says it in the log.
    fn tell(&self, is_whole: bool, lacking: Vec<Lacking>, found: Vec<Trouble>) {
        for new in found.iter().filter(|trouble| !self.troubles.borrow().contains(trouble)) {
            tracing::error!("{}", new.said);
        }
        let was_whole = self.attached.send_replace(is_whole);
        if was_whole && !is_whole {
            let names: Vec<_> = lacking.iter().map(|one| one.name.as_str()).collect();
            let names = names.join(", ");
            tracing::error!(
                lacking = names,
                "no VIP is advertised: the fast path is not on every interface"
            );
        }
        self.lacking.send_if_modified(|old| std::mem::replace(old, lacking.clone()) != lacking);
        self.troubles.send_if_modified(|old| std::mem::replace(old, found.clone()) != found);
    }
}

async fn follow(
    mut links: watch::Receiver<Vec<Link>>,
    dataplane: DataplaneHandle,
    config: config::Dataplane,
    others: Told,
) {
    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut following = Following::default();
    loop {
        let now = links.borrow_and_update().clone();
        // The kernel has not told its links yet: nothing is known to be gone.
        if !now.is_empty() {
            let Some(found) = following.attach_and_look(&now, &dataplane, &config).await else {
                return;
            };
            let (is_whole, lacking) = following.judge(&now, &config.interfaces, &found);
            others.tell(is_whole, lacking, found);
        }
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            _ = retry.tick() => {}
            () = dataplane.ended() => return,
        }
    }
}

fn choice(config: &config::Dataplane) -> HookChoice {
    match config.hook {
        config::Hook::Auto => HookChoice::Auto,
        config::Hook::Xdp => HookChoice::Xdp(match config.xdp_mode {
            config::XdpMode::Native => XdpMode::Native,
            config::XdpMode::Generic => XdpMode::Generic,
            config::XdpMode::Auto => XdpMode::Auto,
        }),
        config::Hook::Tc => HookChoice::Tc,
    }
}

async fn carry_out(
    dataplane: &DataplaneHandle,
    step: Step,
    choice: HookChoice,
    done: &mut Done,
    refused: &mut Refused,
) -> Result<(), String> {
    match step {
        Step::Attach(link) => {
            let placed = attach(dataplane, &link.name, choice).await?;
            tracing::info!(interface = link.name, hook = ?placed.hook, "attached");
            match &placed.refused {
                None => refused.remove(&link.ifindex),
                Some(why) => refused.insert(link.ifindex, instead_of_xdp(&link.name, why)),
            };
            done.insert(link.ifindex, (link.name, link.mac));
        }
        Step::Detach(name, why) => {
            let interface = name.clone();
            dataplane
                .with(move |owned| owned.dataplane.detach(&interface))
                .await?
                .map_err(|error| sentence(&error))?;
            done.retain(|_, (of, _)| *of != name);
            tracing::info!(interface = name, "detached: {why}");
        }
    }
    Ok(())
}

/// Loads what these steps attach first before any of them: while one interface is attached to and the next one waits for the
/// kernel to check a program, packets are translated in one direction only.
async fn load_for(
    dataplane: &DataplaneHandle,
    steps: &[Step],
    choice: HookChoice,
) -> Result<(), String> {
    let name = |step: &Step| match step {
        Step::Attach(link) => Some(link.name.clone()),
        Step::Detach(..) => None,
    };
    let names: Vec<String> = steps.iter().filter_map(name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let all = dataplane.with(move |owned| owned.dataplane.to_load_for(&names, choice)).await?;
    for one in all {
        load(dataplane, one).await?;
    }
    Ok(())
}

/// Loads a program beside the dataplane's thread, whose other calls go on meanwhile. Why it is not there is told by whoever
/// attaches.
async fn load(dataplane: &DataplaneHandle, load: Load) -> Result<(), String> {
    let loaded = tokio::task::spawn_blocking(move || load.run()).await;
    let loaded = loaded.map_err(|error| sentence(&error))?;
    dataplane.with(move |owned| owned.dataplane.loaded(loaded)).await
}

async fn attach(
    dataplane: &DataplaneHandle,
    interface: &str,
    choice: HookChoice,
) -> Result<Placed, String> {
    let mut loads = 0;
    loop {
        let name = interface.to_owned();
        let tried = dataplane.with(move |owned| owned.dataplane.attach_loaded(&name, choice));
        match tried.await? {
            Ok(placed) => return Ok(placed),
            Err(AttachError::NotLoaded { hook, .. }) if loads < PROGRAMS => {
                let missing = dataplane.with(move |owned| owned.dataplane.to_load(hook)).await?;
                load(dataplane, missing).await?;
                loads += 1;
            }
            Err(error) => return Err(sentence(&error)),
        }
    }
}

fn instead_of_xdp(interface: &str, why: &AttachError) -> String {
    let why = sentence(why);
    format!(
        "interface {interface} is attached at TC, as the kernel refuses the program at XDP; set dataplane.hook to tc if that is to stay, or update lbd or the kernel ({why})"
    )
}

/// What is to be done. Every interface is attached to once by this process, also where an earlier one did: that brings
/// its program up to date.
fn plan(links: &[Link], attached: &[Attached], done: &mut Done, patterns: &[String]) -> Vec<Step> {
    let wanted = |name: &str| is_wanted(patterns, name);
    done.retain(|ifindex, _| {
        links.iter().any(|link| link.ifindex == *ifindex)
            && attached.iter().any(|attached| attached.ifindex == *ifindex)
    });
    let is_done = |link: &Link| {
        done.get(&link.ifindex).is_some_and(|(name, mac)| *name == link.name && *mac == link.mac)
    };
    let attach = links
        .iter()
        .filter(|link| is_attachable(links, link, patterns) && !is_done(link))
        .filter(|link| !vlans::is_handled_below(links, link, patterns))
        .map(|link| Step::Attach(link.clone()));
    let link = |ifindex: u32| links.iter().find(|link| link.ifindex == ifindex);
    let is_in_vrf = |ifindex: u32| link(ifindex).is_some_and(|link| vrf(links, link).is_some());
    let is_attached = |ifindex: u32| attached.iter().any(|one| one.ifindex == ifindex);
    // Not before the whole, or the one below, is attached to: it may have somebody else's program.
    let is_port = |ifindex: u32| {
        let whole = link(ifindex).and_then(|link| wanted_whole(links, link, patterns));
        whole.is_some_and(|(whole, _)| is_attached(whole))
    };
    let is_below = |ifindex: u32| {
        let below = link(ifindex).and_then(|link| vlans::handled_by(links, link, patterns));
        below.is_some_and(is_attached)
    };
    let detach = attached.iter().filter_map(|attached| {
        let why = match attached {
            Attached { name, .. } if !wanted(name) => "no longer configured",
            Attached { ifindex, .. } if is_in_vrf(*ifindex) => "it is in a VRF now",
            Attached { ifindex, .. } if is_port(*ifindex) => {
                "its frames are handled on what it is a port of"
            }
            Attached { ifindex, .. } if is_below(*ifindex) => {
                "its frames are handled where they come in, on the interface below"
            }
            Attached { .. } => return None,
        };
        Some(Step::Detach(attached.name.clone(), why))
    });
    detach.chain(attach).collect()
}

/// Whether the fast path is to be attached to a link, and can be.
pub(super) fn is_attachable(links: &[Link], link: &Link, patterns: &[String]) -> bool {
    link.ethernet
        && is_wanted(patterns, &link.name)
        && wanted_whole(links, link, patterns).is_none()
        && vrf(links, link).is_none()
}

/// One sentence per interface that is configured and that the fast path is not attached to, since its packets do not take the
/// main table, the only one that the fast path knows; and per port of a bridge or bond that is not configured, although the
/// packets for this host belong to that, with MAC, addresses and routes.
fn left_out(links: &[Link], patterns: &[String]) -> Vec<Trouble> {
    let wanted = links.iter().filter(|link| link.ethernet && is_wanted(patterns, &link.name));
    let sentence = |link: &Link| {
        let name = &link.name;
        let Some(vrf) = vrf(links, link) else {
            let (_, of) = whole(links, link)?;
            return (!is_wanted(patterns, &of)).then(|| {
                format!(
                    "interface {name} is a port of {of}, to which packets for this host belong: those that have not {name}'s own MAC miss the fast path; name {of} in dataplane.interfaces instead of {name}"
                )
            });
        };
        Some(format!(
            "interface {name} is in VRF {vrf}: the fast path forwards by the main table, so it is not attached there and the kernel forwards by the VRF's; leave the interface out of dataplane.interfaces, or take it out of the VRF (`ip link set {name} nomaster`)"
        ))
    };
    let trouble = |link: &Link| Some(Trouble { of: Some(link.ifindex), said: sentence(link)? });
    wanted.filter_map(trouble).collect()
}

/// Index and name of the bridge or bond that a port is of, where there are several of the outermost.
fn whole(links: &[Link], port: &Link) -> Option<(u32, String)> {
    let mut of = port.controller?.ifindex;
    for _ in 0..NESTED {
        let Some(link) = links.iter().find(|link| link.ifindex == of) else {
            return Some((of, format!("#{of}")));
        };
        match link.controller {
            None => return Some((of, link.name.clone())),
            Some(outer) => of = outer.ifindex,
        }
    }
    None
}

/// Where the packets of an interface are handled that is configured and not to be attached to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// A VLAN's: on the interface below, by index and name.
    Below(u32, String),
    /// A port's: on the bridge or bond.
    Whole(u32, String),
}

/// Where that is; `None`: on the interface, or nowhere.
pub(super) fn instead(links: &[Link], link: &Link, patterns: &[String]) -> Option<Instead> {
    if let Some(below) = vlans::handled_by(links, link, patterns) {
        let name = links.iter().find(|link| link.ifindex == below)?.name.clone();
        return Some(Instead::Below(below, name));
    }
    wanted_whole(links, link, patterns).map(|(of, name)| Instead::Whole(of, name))
}

/// The bridge or bond of a port, if it is configured: then its ports are not attached to. Otherwise they are, as what has the
/// port's own MAC can be handled there.
fn wanted_whole(links: &[Link], port: &Link, patterns: &[String]) -> Option<(u32, String)> {
    whole(links, port).filter(|(_, name)| is_wanted(patterns, name))
}

/// The name of the VRF that a link's packets belong to: its own, or that of the bridge or bond that it is a port of.
fn vrf(links: &[Link], link: &Link) -> Option<String> {
    let mut port = link;
    for _ in 0..NESTED {
        let Controller { ifindex, is_vrf } = port.controller?;
        let controller = links.iter().find(|link| link.ifindex == ifindex);
        if is_vrf {
            return Some(controller.map_or(format!("#{ifindex}"), |vrf| vrf.name.clone()));
        }
        port = controller?;
    }
    None
}

/// Whether the fast path is to be attached to the interface of a name.
pub(super) fn is_wanted(patterns: &[String], name: &str) -> bool {
    lb_dataplane::is_named(patterns, name)
}

#[cfg(test)]
mod tests {
    use lb_dataplane::Hook;

    use super::*;

    pub(super) fn link(ifindex: u32, name: &str) -> Link {
        Link {
            ifindex,
            name: name.into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            ethernet: name != "lo",
            controller: None,
            vlan: None,
        }
    }

    pub(super) fn port(ifindex: u32, name: &str, of: u32, is_vrf: bool) -> Link {
        Link { controller: Some(Controller { ifindex: of, is_vrf }), ..link(ifindex, name) }
    }

    fn told(links: &[Link], patterns: &[String]) -> Vec<String> {
        let troubles = left_out(links, patterns).into_iter();
        let about = |trouble: &Trouble| links.iter().find(|link| Some(link.ifindex) == trouble.of);
        let said = |trouble: Trouble| {
            let name = &about(&trouble).expect("it is about an interface").name;
            assert!(trouble.said.starts_with(&format!("interface {name} ")), "{trouble:?}");
            trouble.said
        };
        troubles.map(said).collect()
    }

    fn attached(ifindex: u32, name: &str) -> Attached {
        Attached { name: name.into(), ifindex, hook: Hook::Tc }
    }

    #[test]
    fn interfaces_are_attached_as_they_appear_and_once_only() {
        let patterns = ["eth*".to_owned()];
        let links = [link(1, "lo"), link(2, "eth0"), link(3, "wan")];
        let mut done = Done::new();
        assert_eq!(plan(&links, &[], &mut done, &patterns), [Step::Attach(link(2, "eth0"))]);
        done.insert(2, ("eth0".into(), [2; 6]));
        let now = [attached(2, "eth0")];
        assert_eq!(plan(&links, &now, &mut done, &patterns), []);
        let more = [link(2, "eth0"), link(4, "eth1")];
        assert_eq!(plan(&more, &now, &mut done, &patterns), [Step::Attach(link(4, "eth1"))]);
    }

    #[test]
    fn an_interface_that_an_earlier_process_attached_is_brought_up_to_date() {
        let patterns = ["eth0".to_owned()];
        let steps = plan(&[link(2, "eth0")], &[attached(2, "eth0")], &mut Done::new(), &patterns);
        assert_eq!(steps, [Step::Attach(link(2, "eth0"))]);
    }

    #[test]
    fn a_new_mac_a_new_name_and_a_lost_attachment_are_attached_anew() {
        let patterns = ["eth*".to_owned()];
        let now = [attached(2, "eth0")];
        for known in [("eth0".to_owned(), [9; 6]), ("eth9".to_owned(), [2; 6])] {
            let mut done = Done::from([(2, known)]);
            assert_eq!(plan(&[link(2, "eth0")], &now, &mut done, &patterns).len(), 1);
        }
        let mut done = Done::from([(2, ("eth0".to_owned(), [2; 6]))]);
        assert_eq!(plan(&[link(2, "eth0")], &[], &mut done, &patterns).len(), 1);
    }

    #[test]
    fn what_is_no_longer_configured_is_detached() {
        let steps = plan(&[link(2, "eth0")], &[attached(2, "eth0")], &mut Done::new(), &[]);
        assert_eq!(steps, [Step::Detach("eth0".into(), "no longer configured")]);
    }

    #[test]
    fn a_port_of_a_vrf_is_left_to_the_kernel_also_behind_a_bond() {
        let patterns = ["eth*".to_owned()];
        let links = [
            Link { ethernet: false, ..link(9, "red") },
            port(7, "bond0", 9, true),
            port(2, "eth0", 9, true),
            port(3, "eth1", 7, false),
            link(4, "eth2"),
            // What it is a port of is in another namespace.
            port(5, "eth3", 77, true),
        ];
        let steps = plan(&links, &[], &mut Done::new(), &patterns);
        assert_eq!(steps, [Step::Attach(links[4].clone())]);
        let told = told(&links, &patterns);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("interface eth0 is in VRF red: "), "{told:?}");
        assert!(told[1].starts_with("interface eth1 is in VRF red: "), "{told:?}");
        assert!(told[2].starts_with("interface eth3 is in VRF #77: "), "{told:?}");
    }

    #[test]
    fn a_bridge_and_a_bond_are_attached_to_and_their_ports_where_they_are_not_named() {
        let links = [
            link(7, "bond0"),
            port(8, "bond1", 9, false),
            link(9, "br0"),
            port(2, "eth0", 7, false),
            port(3, "eth1", 8, false),
            port(4, "eth2", 9, false),
        ];
        let of = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.into()).collect();
            let steps = plan(&links, &[], &mut Done::new(), &patterns);
            let attach = |step| match step {
                Step::Attach(link) => link.name,
                other @ Step::Detach(..) => panic!("{other:?}"),
            };
            let attached: Vec<_> = steps.into_iter().map(attach).collect();
            (attached.join(" "), told(&links, &patterns))
        };
        assert_eq!(of(&["*"]), ("bond0 br0".into(), vec![]));
        assert_eq!(of(&["bond0", "eth0", "br*"]), ("bond0 br0".into(), vec![]));
        let (names, told) = of(&["eth*"]);
        assert_eq!((names.as_str(), told.len()), ("eth0 eth1 eth2", 3), "{told:?}");
        for (told, name) in told.iter().zip(["bond0", "br0", "br0"]) {
            assert!(told.contains(&format!("name {name} in dataplane.interfaces")), "{told}");
        }
        let all = ["*".to_owned()];
        assert_eq!(instead(&links, &links[4], &all), Some(Instead::Whole(9, "br0".into())));
        assert_eq!(instead(&links, &links[4], &["eth*".to_owned()]), None);
        assert_eq!(instead(&links, &links[2], &all), None);
        let vlan = lb_routing::Vlan { link: 9, is_service_tag: false, id: 5 };
        let vlan = Link { vlan: Some(vlan), ..link(10, "br0.5") };
        assert_eq!(instead(&links, &vlan, &all), Some(Instead::Below(9, "br0".into())));
    }

    #[test]
    fn a_port_is_detached_from_once_its_bridge_is_attached_to() {
        let links = [link(9, "br0"), port(4, "eth2", 9, false)];
        let mut done = Done::from([(4, ("eth2".to_owned(), [2; 6]))]);
        let before = [attached(4, "eth2")];
        assert_eq!(plan(&links, &before, &mut done, &["eth2".into()]), []);
        let all = ["*".to_owned()];
        assert_eq!(plan(&links, &before, &mut done, &all), [Step::Attach(links[0].clone())]);
        done.insert(9, ("br0".into(), [2; 6]));
        let both = [attached(4, "eth2"), attached(9, "br0")];
        let why = "its frames are handled on what it is a port of";
        assert_eq!(plan(&links, &both, &mut done, &all), [Step::Detach("eth2".into(), why)]);
    }

    #[test]
    fn an_interface_that_goes_into_a_vrf_is_detached_and_one_that_leaves_it_is_attached() {
        let patterns = ["eth0".to_owned()];
        let inside = [link(9, "red"), port(2, "eth0", 9, true)];
        let mut done = Done::from([(2, ("eth0".to_owned(), [2; 6]))]);
        let steps = plan(&inside, &[attached(2, "eth0")], &mut done, &patterns);
        assert_eq!(steps, [Step::Detach("eth0".into(), "it is in a VRF now")]);
        assert_eq!(plan(&inside, &[], &mut done, &patterns), []);
        let outside = [link(9, "red"), link(2, "eth0")];
        assert_eq!(told(&outside, &patterns), [""; 0]);
        let steps = plan(&outside, &[], &mut done, &patterns);
        assert_eq!(steps, [Step::Attach(outside[1].clone())]);
    }
}
