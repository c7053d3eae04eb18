//! Attachments to interfaces: which hook, whose program, and what a restart does to them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use caps::{CapSet, Capability};
use lb_dataplane::{AttachError, Attached, Hook, HookChoice, Placed, XdpMode};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::frame::{SYN, packet};
use crate::net::Namespace;
use crate::scene::Scene;

fn veth() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add left index 50 type veth peer name right");
    // What nobody has asked for is not to come: neither end looks for neighbours by itself.
    for end in ["left", "right"] {
        namespace.command("sysctl", &format!("-qw net.ipv6.conf.{end}.disable_ipv6=1"));
    }
    namespace.ip("link set left up");
    namespace.ip("link set right up");
    namespace
}

fn attach(
    scene: &mut Scene,
    namespace: &Namespace,
    interface: &str,
    choice: HookChoice,
) -> Result<Hook, AttachError> {
    let dataplane = scene.get();
    namespace.run(|| dataplane.attach(interface, choice))
}

fn attached(scene: &mut Scene, namespace: &Namespace) -> Vec<Attached> {
    let dataplane = scene.get();
    namespace.run(|| dataplane.attached())
}

/// The link's id and its program's.
fn link(scene: &Scene, name: &str) -> (u32, u32) {
    let pin = scene.options.pin_dir.join("links").join(name);
    let info = FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap();
    (info.id(), info.program_id())
}

#[test]
fn what_comes_in_through_an_interface_is_counted_there_and_no_sum_shrinks_when_it_goes() {
    for choice in [HookChoice::Tc, HookChoice::Xdp(XdpMode::Native)] {
        let namespace = veth();
        let mut scene = Scene::new();
        let all = |scene: &mut Scene| {
            scene.get().reasons().unwrap().iter().map(|count| count.packets).sum::<u64>()
        };
        let here = |scene: &mut Scene, ifindex: u32| {
            let counts = scene.get().interface_reasons().unwrap();
            counts.get(&ifindex).map(|counts| counts.iter().map(|count| count.packets).sum::<u64>())
        };
        // Test runs come in through an interface that nothing is attached to.
        scene.send(Hook::Tc, &packet(SYN, "10.1.0.5:40000", "10.2.0.3:53"));
        let before = all(&mut scene);
        assert_eq!((before, here(&mut scene, 50)), (1, None));
        attach(&mut scene, &namespace, "left", choice).unwrap();
        assert_eq!(here(&mut scene, 50), Some(0));
        namespace.ip("addr add 192.0.2.1/24 dev right");
        let deadline = Instant::now() + Duration::from_secs(40);
        while here(&mut scene, 50) == Some(0) {
            // Nobody has this address: the question for it comes to the other end.
            namespace.run(|| {
                let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
                let _no_route_yet = socket.send_to(b"who?", "192.0.2.9:9");
            });
            assert!(Instant::now() < deadline, "nothing was counted");
        }
        namespace.ip("link set right down");
        let (counted, sum) = (here(&mut scene, 50).unwrap(), all(&mut scene));
        assert_eq!(sum, before + counted, "{choice:?}");
        let dataplane = scene.get();
        namespace.run(|| dataplane.detach("left")).unwrap();
        assert_eq!(here(&mut scene, 50), None);
        attach(&mut scene, &namespace, "right", choice).unwrap();
        let right = namespace.ifindex("right");
        assert_eq!(here(&mut scene, right), Some(0), "{choice:?}: it begins at zero");
        assert_eq!(all(&mut scene), sum, "{choice:?}");
    }
}

#[test]
fn auto_is_tc_on_veth_and_native_xdp_is_there_when_asked_for() {
    let namespace = veth();
    let mut scene = Scene::new();
    assert_eq!(attach(&mut scene, &namespace, "left", HookChoice::Auto).unwrap(), Hook::Tc);
    assert_eq!(
        attach(&mut scene, &namespace, "right", HookChoice::Xdp(XdpMode::Native)).unwrap(),
        Hook::Xdp
    );
    let right = namespace.ifindex("right");
    let all = attached(&mut scene, &namespace);
    let expected = [("left", 50, Hook::Tc), ("right", right, Hook::Xdp)];
    let mut expected =
        expected.map(|(name, ifindex, hook)| Attached { name: name.to_owned(), ifindex, hook });
    expected.sort_by_key(|a| a.ifindex);
    assert_eq!(all, expected);
    let shown = namespace.command("ip", "link show right");
    assert!(shown.contains("prog/xdp") && !shown.contains("xdpgeneric"), "{shown}");

    let dataplane = scene.get();
    namespace.run(|| dataplane.detach("left")).unwrap();
    assert_eq!(attached(&mut scene, &namespace).len(), 1);
}

#[test]
fn another_hook_takes_the_place_of_the_first_one() {
    let namespace = veth();
    let mut scene = Scene::new();
    for hook in [HookChoice::Tc, HookChoice::Xdp(XdpMode::Native), HookChoice::Tc] {
        attach(&mut scene, &namespace, "left", hook).unwrap();
        assert_eq!(attached(&mut scene, &namespace).len(), 1, "never both");
    }
    // The kernel takes the program off some time after the last reference to its link is gone.
    let deadline = Instant::now() + Duration::from_secs(10);
    while namespace.command("ip", "link show left").contains("prog/xdp") {
        assert!(Instant::now() < deadline, "XDP's program stays");
    }
}

#[test]
fn a_restart_replaces_the_program_in_the_attachment_that_is_there() {
    let namespace = veth();
    for (choice, pin) in [(HookChoice::Tc, "50-tc"), (HookChoice::Xdp(XdpMode::Native), "50-xdp")] {
        let mut scene = Scene::new();
        attach(&mut scene, &namespace, "left", choice).unwrap();
        let before = link(&scene, pin);
        scene.open();
        assert_eq!(attached(&mut scene, &namespace).len(), 1, "attached all the while");
        attach(&mut scene, &namespace, "left", choice).unwrap();
        assert_eq!(link(&scene, pin), before, "the same link and program");
        // Another option is a constant in the program.
        scene.options.sample_every = 2;
        scene.open();
        assert_eq!(link(&scene, pin), before, "until it is attached to");
        attach(&mut scene, &namespace, "left", choice).unwrap();
        let after = link(&scene, pin);
        assert_eq!(after.0, before.0, "the same link");
        assert_ne!(after.1, before.1, "another program");
    }
}

#[test]
fn somebody_elses_xdp_program_is_left_alone_and_named() {
    let namespace = veth();
    let (mut first, mut second) = (Scene::new(), Scene::new());
    attach(&mut first, &namespace, "left", HookChoice::Xdp(XdpMode::Native)).unwrap();
    let error =
        attach(&mut second, &namespace, "left", HookChoice::Xdp(XdpMode::Native)).unwrap_err();
    let AttachError::Taken { name, .. } = &error else { panic!("{error:?}") };
    assert_eq!(name.as_deref(), Some("lbd_xdp"));
    assert!(error.to_string().contains("ip link set left xdp off"), "{error}");
    assert_eq!(attached(&mut first, &namespace).len(), 1);
    assert_eq!(attached(&mut second, &namespace).len(), 0);
}

#[test]
fn an_interface_that_came_back_with_the_same_index_is_attached_anew() {
    let namespace = veth();
    let mut scene = Scene::new();
    for choice in [HookChoice::Tc, HookChoice::Xdp(XdpMode::Native)] {
        attach(&mut scene, &namespace, "left", choice).unwrap();
        namespace.ip("link del left");
        namespace.ip("link add left index 50 type veth peer name right");
        namespace.ip("link set left up");
        attach(&mut scene, &namespace, "left", choice).unwrap();
        let pin = if choice == HookChoice::Tc { "50-tc" } else { "50-xdp" };
        assert_ne!(link(&scene, pin).1, 0);
        if choice == HookChoice::Xdp(XdpMode::Native) {
            assert!(namespace.command("ip", "link show left").contains("prog/xdp"));
        }
    }
}

/// From here on the kernel refuses this thread every program.
fn have_programs_refused(errno: i32) {
    const BPF_PROG_LOAD: u64 = 5;
    let is_load =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, BPF_PROG_LOAD);
    let rule = SeccompRule::new(vec![is_load.unwrap()]).unwrap();
    let refuse = SeccompAction::Errno(errno as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(libc::SYS_bpf, vec![rule])].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// As the verifier does.
const FOR_GOOD: i32 = libc::EACCES;
/// As a host does that is short of memory.
const FOR_NOW: i32 = libc::ENOMEM;

fn attach_refused(
    scene: &mut Scene,
    namespace: &Namespace,
    interface: &str,
    choice: HookChoice,
    errno: i32,
) -> AttachError {
    let dataplane = scene.get();
    namespace.run(|| {
        have_programs_refused(errno);
        dataplane.attach(interface, choice).unwrap_err()
    })
}

#[test]
fn where_the_kernel_refuses_the_program_that_of_an_earlier_build_stays_if_it_has_the_same_tables() {
    let namespace = veth();
    let native = HookChoice::Xdp(XdpMode::Native);
    let mut scene = Scene::new();
    attach(&mut scene, &namespace, "left", native).unwrap();
    let before = link(&scene, "50-xdp");
    // Another option is a constant in the program: another build.
    scene.options.sample_every = 2;
    // The second time, what the packet path of this build was loaded for has removed what no one runs.
    for _ in 0..2 {
        scene.open();
        attach(&mut scene, &namespace, "right", HookChoice::Tc).unwrap();
        for errno in [FOR_NOW, FOR_GOOD] {
            let error = attach_refused(&mut scene, &namespace, "left", native, errno);
            let AttachError::Load { source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(error.to_string(), "the program for interface left is not there");
            assert_eq!(source.to_string(), "the kernel refuses program lbd_xdp_find");
            assert_eq!(link(&scene, "50-xdp"), before, "errno {errno}");
            let dataplane = scene.get();
            assert!(
                namespace.run(|| dataplane.carried().unwrap()).contains(&50),
                "and serves as before"
            );
        }
    }
    // What the verifier refused it is not asked again.
    let again = attach(&mut scene, &namespace, "left", native).unwrap_err();
    assert!(matches!(again, AttachError::Load { .. }), "{again:?}");
    // At another hook the program is another one.
    assert_eq!(attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap(), Hook::Tc);
    let builds = scene.programs().into_iter().map(|path| path.parent().unwrap().to_owned());
    assert_eq!(builds.collect::<BTreeSet<_>>().len(), 1, "nothing runs the earlier ones any more");
}

#[test]
fn a_program_with_other_tables_stays_while_ours_may_come_and_goes_when_that_is_refused() {
    let namespace = veth();
    namespace.ip("link add w0 type veth peer name w1");
    let native = HookChoice::Xdp(XdpMode::Native);
    let (mut scene, mut other) = (Scene::new(), Scene::new());
    attach(&mut scene, &namespace, "left", native).unwrap();
    attach(&mut scene, &namespace, "right", HookChoice::Tc).unwrap();
    attach(&mut scene, &namespace, "w0", HookChoice::Tc).unwrap();
    scene.dataplane = None;
    let maps = scene.pins().into_iter().find(|path| path.ends_with("maps/FLOWS")).unwrap();
    let layout = maps.ancestors().nth(2).unwrap();
    std::fs::rename(layout, scene.options.pin_dir.join("0123456789abcdef")).unwrap();
    scene.open();
    let here = |scene: &mut Scene| {
        let here = attached(scene, &namespace).into_iter().map(|one| one.name);
        here.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    assert!(matches!(
        attach_refused(&mut scene, &namespace, "left", native, FOR_NOW),
        AttachError::Load { .. }
    ));
    assert_eq!(here(&mut scene), "left right w0");
    // Somebody else's program is where ours is to be.
    attach(&mut other, &namespace, "w0", native).unwrap();
    let error = attach(&mut scene, &namespace, "w0", native).unwrap_err();
    assert!(matches!(error, AttachError::Taken { .. }), "{error:?}");
    assert_eq!(here(&mut scene), "left right");
    attach_refused(&mut scene, &namespace, "right", HookChoice::Tc, FOR_GOOD);
    assert_eq!(here(&mut scene), "left");
    let right = namespace.ifindex("right");
    assert_eq!(scene.get().interface_reasons().unwrap().get(&right), None, "nor is it counted");
}

#[test]
fn what_an_attached_program_leads_to_stays_until_another_one_is_in_its_place() {
    let namespace = veth();
    let mut scene = Scene::new();
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    scene.dataplane = None;
    let maps = scene.pins().into_iter().find(|path| path.ends_with("maps/FLOWS")).unwrap();
    let other = scene.options.pin_dir.join("0123456789abcdef");
    std::fs::rename(maps.ancestors().nth(2).unwrap(), &other).unwrap();
    scene.open();
    namespace.run(|| assert!(scene.get().program(Hook::Tc).is_ok()));
    assert!(scene.arrays().iter().any(|array| array.starts_with(&other)));
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    assert!(!other.exists());
}

#[test]
fn why_a_program_is_not_there_is_told_of_every_interface_until_it_is_loaded() {
    let namespace = veth();
    let mut scene = Scene::new();
    let refused = scene.get().to_load(Hook::Tc);
    let refused = std::thread::spawn(|| {
        have_programs_refused(FOR_NOW);
        refused.run()
    });
    let all = ["left", "right"].map(str::to_owned);
    let dataplane = scene.get();
    dataplane.loaded(refused.join().unwrap());
    namespace.run(|| {
        for interface in &all {
            let error = dataplane.attach_loaded(interface, HookChoice::Tc).unwrap_err();
            assert!(matches!(error, AttachError::Load { .. }), "{error:?}");
        }
        for load in dataplane.to_load_for(&all, HookChoice::Tc) {
            let loaded = load.run();
            dataplane.loaded(loaded);
        }
        for interface in &all {
            dataplane.attach_loaded(interface, HookChoice::Tc).unwrap();
        }
    });
}

#[test]
fn a_program_is_loaded_beside_the_dataplane_and_until_then_what_is_attached_stays() {
    let namespace = veth();
    let mut scene = Scene::new();
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    scene.options.sample_every = 2;
    scene.open();
    let before = link(&scene, "50-tc");
    let all = ["left", "right", "nowhere"].map(str::to_owned);
    let dataplane = scene.get();
    let (error, mut loads) = namespace.run(|| {
        let tried = dataplane.attach_loaded("left", HookChoice::Auto);
        (tried.unwrap_err(), dataplane.to_load_for(&all, HookChoice::Auto))
    });
    assert!(matches!(error, AttachError::NotLoaded { hook: Hook::Tc, .. }), "{error:?}");
    assert_eq!(link(&scene, "50-tc"), before);
    assert_eq!(loads.len(), 1, "all of them take the same one");
    let refused = loads.remove(0);
    let refused = std::thread::spawn(|| {
        have_programs_refused(FOR_GOOD);
        refused.run()
    });
    let loaded = scene.get().to_load(Hook::Xdp).run();
    let dataplane = scene.get();
    dataplane.loaded(refused.join().unwrap());
    dataplane.loaded(loaded);
    namespace.run(|| {
        assert_eq!(dataplane.to_load_for(&all, HookChoice::Auto).len(), 0, "it would be refused");
        let error = dataplane.attach_loaded("left", HookChoice::Auto).unwrap_err();
        assert!(matches!(error, AttachError::Load { .. }), "{error:?}");
        let placed = dataplane.attach_loaded("right", HookChoice::Xdp(XdpMode::Native)).unwrap();
        assert!(matches!(placed, Placed { hook: Hook::Xdp, refused: None }), "{placed:?}");
    });
}

#[test]
fn ways_to_run_xdp_take_turns_also_where_the_kernel_tells_no_programs_by_their_ids() {
    let namespace = veth();
    let mut scene = Scene::new();
    let [native, generic] = [XdpMode::Native, XdpMode::Generic].map(HookChoice::Xdp);
    attach(&mut scene, &namespace, "left", native).unwrap();
    let mut other = Scene::new();
    attach(&mut other, &namespace, "right", native).unwrap();
    let dataplane = scene.get();
    namespace.run(|| {
        // As the daemon runs.
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
        // The kernel takes a program off when it comes to it, mostly after the next one is to be there.
        let turns = [generic, native, HookChoice::Tc, generic, HookChoice::Tc, native];
        for choice in turns.into_iter().cycle().take(60) {
            dataplane.attach("left", choice).unwrap();
        }
        let error = dataplane.attach("right", native).unwrap_err();
        let AttachError::Taken { name: Some(name), .. } = &error else { panic!("{error:?}") };
        assert!(name.starts_with("id "), "{name}");
    });
}

#[test]
fn what_is_no_ethernet_interface_is_refused_by_name() {
    let namespace = veth();
    let mut scene = Scene::new();
    let error = attach(&mut scene, &namespace, "nowhere", HookChoice::Auto).unwrap_err();
    assert_eq!(error.to_string(), "no interface nowhere");
    let error = attach(&mut scene, &namespace, "lo", HookChoice::Auto).unwrap_err();
    assert_eq!(error.to_string(), "interface lo is no Ethernet interface");
}

#[test]
fn an_interface_that_is_gone_is_forgotten_with_the_next_attachment() {
    let namespace = veth();
    let mut scene = Scene::new();
    attach(&mut scene, &namespace, "left", HookChoice::Xdp(XdpMode::Native)).unwrap();
    let gone = namespace.ifindex("left");
    namespace.ip("link del left");
    namespace.ip("link add w0 type veth peer name w1");
    attach(&mut scene, &namespace, "w0", HookChoice::Tc).unwrap();

    let links = std::fs::read_dir(scene.options.pin_dir.join("links")).unwrap();
    let links: Vec<_> = links.map(|l| l.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(links, [format!("{}-tc", namespace.ifindex("w0"))]);
    let macs: aya::maps::HashMap<_, u32, [u8; 8]> =
        scene.get().map_mut("IFACES").unwrap().try_into().unwrap();
    assert!(macs.keys().all(|index| index.unwrap() != gone));
}

#[test]
fn an_attachment_whose_interface_is_gone_keeps_nothing_of_another_build() {
    let namespace = veth();
    let mut scene = Scene::new();
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    attach(&mut scene, &namespace, "right", HookChoice::Xdp(XdpMode::Native)).unwrap();
    scene.dataplane = None;
    let maps = scene.pins().into_iter().find(|path| path.ends_with("maps/FLOWS")).unwrap();
    let layout = maps.ancestors().nth(2).unwrap();
    std::fs::rename(layout, scene.options.pin_dir.join("0123456789abcdef")).unwrap();
    scene.open();
    assert_eq!(attached(&mut scene, &namespace).len(), 2, "they run what they ran");
    let dataplane = scene.get();
    assert_eq!(
        namespace.run(|| dataplane.carried().unwrap()),
        BTreeSet::new(),
        "with tables of their own"
    );
    namespace.ip("link del left");
    // Another one with its index: nothing is attached there.
    namespace.ip("link add left index 50 type veth peer name right");
    assert_eq!(attached(&mut scene, &namespace), []);
    let dataplane = scene.get();
    namespace.run(|| dataplane.forget_gone());
    let links = std::fs::read_dir(scene.options.pin_dir.join("links")).unwrap();
    assert_eq!(links.count(), 0);
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    let dataplane = scene.get();
    assert_eq!(namespace.run(|| dataplane.carried().unwrap()), [50].into());
}

#[test]
fn generic_xdp_is_there_when_asked_for_and_never_on_top_of_anothers_program() {
    let namespace = veth();
    let (mut scene, mut other) = (Scene::new(), Scene::new());
    let generic = HookChoice::Xdp(XdpMode::Generic);
    // A bridge has no native XDP; `auto` takes the other one there, and the driver's on a veth.
    namespace.ip("link add br0 type bridge");
    let error =
        attach(&mut scene, &namespace, "br0", HookChoice::Xdp(XdpMode::Native)).unwrap_err();
    assert!(matches!(&error, AttachError::NoNativeXdp { .. }), "{error}");
    assert!(error.to_string().contains("xdp_mode auto or generic"), "{error}");
    let auto = HookChoice::Xdp(XdpMode::Auto);
    assert_eq!(attach(&mut scene, &namespace, "br0", auto).unwrap(), Hook::GenericXdp);
    assert_eq!(attach(&mut scene, &namespace, "left", auto).unwrap(), Hook::Xdp);
    // From one way to the other and back, and one of them at a time.
    for (choice, hook, shown) in [
        (generic, Hook::GenericXdp, "xdpgeneric"),
        (HookChoice::Xdp(XdpMode::Native), Hook::Xdp, "prog/xdp"),
        (generic, Hook::GenericXdp, "xdpgeneric"),
        (HookChoice::Tc, Hook::Tc, "left"),
    ] {
        assert_eq!(attach(&mut scene, &namespace, "left", choice).unwrap(), hook);
        let printed = namespace.command("ip", "link show left");
        assert!(printed.contains(shown), "{printed}");
        let here = attached(&mut scene, &namespace).into_iter().filter(|a| a.ifindex == 50);
        assert_eq!(here.map(|a| a.hook).collect::<Vec<_>>(), [hook]);
    }
    attach(&mut scene, &namespace, "right", generic).unwrap();
    for choice in [generic, HookChoice::Xdp(XdpMode::Native), auto] {
        let error = attach(&mut other, &namespace, "right", choice).unwrap_err();
        assert!(matches!(&error, AttachError::Taken { name: Some(_), .. }), "{error}");
    }
}

#[test]
fn a_device_leaves_vlan_tags_in_their_place_while_xdp_is_there_and_then_does_as_before() {
    let namespace = veth();
    let (mut scene, mut other) = (Scene::new(), Scene::new());
    let native = HookChoice::Xdp(XdpMode::Native);
    // Whether it takes off C-tags, and S-tags.
    let takes_off = |interface: &str| {
        let shown = namespace.command("ethtool", &format!("-k {interface}"));
        ["rx-vlan-offload: on", "rx-vlan-stag-hw-parse: on"].map(|line| shown.contains(line))
    };
    let detach = |scene: &mut Scene, interface: &str| {
        let dataplane = scene.get();
        namespace.run(|| dataplane.detach(interface)).unwrap();
    };
    assert_eq!(takes_off("left"), [true, true], "a veth's default");
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    assert_eq!(takes_off("left"), [true, true], "TC sees them");
    attach(&mut scene, &namespace, "left", native).unwrap();
    assert_eq!(takes_off("left"), [false, false]);
    // Of what was found so the next process knows.
    scene.open();
    attach(&mut scene, &namespace, "left", native).unwrap();
    detach(&mut scene, "left");
    assert_eq!(takes_off("left"), [true, true]);
    attach(&mut scene, &namespace, "left", HookChoice::Xdp(XdpMode::Generic)).unwrap();
    assert_eq!(takes_off("left"), [false, false]);
    attach(&mut scene, &namespace, "left", HookChoice::Tc).unwrap();
    assert_eq!(takes_off("left"), [true, true], "another hook");
    // What somebody else has switched off stays so.
    namespace.command("ethtool", "-K right rxvlan off");
    attach(&mut scene, &namespace, "right", native).unwrap();
    assert_eq!(takes_off("right"), [false, false]);
    attach(&mut other, &namespace, "right", native).unwrap_err();
    assert_eq!(takes_off("right"), [false, false], "a refusal changes nothing");
    let dataplane = scene.dataplane.take().unwrap();
    namespace.run(|| dataplane.destroy()).unwrap();
    assert_eq!(takes_off("right"), [false, true]);
}
