//! What a process leaves in the kernel, and what the next one makes of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap};
use lb_dataplane::table::Algorithm::{self, Maglev, RoundRobin};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::table::{Access, Source};
use lb_dataplane::{Dataplane, Hook, OpenError, Reason, Sizes, clean};

use crate::family::{Family, each};
use crate::frame::{ACK, SYN, SYN_ACK, packet};
use crate::scene::{BOTH, Scene, small};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKENDS: [&str; 2] = ["10.2.0.1:80", "10.2.0.2:80"];

/// Serves a VIP of a family with two backends.
fn serve(scene: &mut Scene, family: Family, number: u16, algorithm: Algorithm) {
    let backends = [&*family.at(2, 1, 80), &family.at(2, 2, 80)];
    scene.serve(&family.vip(number), Tcp, algorithm, &backends);
}

#[test]
fn flows_services_routes_and_counters_outlive_the_process() {
    assert!(!Scene::untouched().get().adopted());
    for (hook, family) in each() {
        let [vip, client, _] = &family.ends();
        let mut scene = Scene::new();
        serve(&mut scene, family, 1, RoundRobin);
        let backend = scene.send(hook, &packet(SYN, client, vip)).frame().to;
        scene.open();
        assert!(scene.get().adopted());
        let ended = scene.send(hook, &packet(ACK, client, vip));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {family:?}");
        assert_eq!(ended.frame().to, backend);
        let other = scene.send(hook, &packet(SYN, &family.at(1, 5, 40_001), vip)).frame().to;
        assert_ne!(other, backend, "the turn goes on");
        let back = packet(SYN_ACK, &backend.to_string(), client);
        assert_eq!(scene.send(hook, &back).reason, Reason::ForwardedToClient);
        assert_eq!(scene.count(Reason::ForwardedToBackend), 3);

        // Applying the same table changes nothing that packets see.
        serve(&mut scene, family, 1, RoundRobin);
        let third = scene.send(hook, &packet(SYN, &family.at(1, 5, 40_002), vip)).frame().to;
        assert_eq!(third, backend, "the turn goes on still");
        let counters = scene.get().service_counters().unwrap();
        assert_eq!(counters.values().next().unwrap().flows, 3, "{hook:?} {family:?}");
    }
}

#[test]
fn a_service_that_the_next_process_does_not_want_is_gone() {
    for (hook, family) in each() {
        let mut scene = Scene::new();
        serve(&mut scene, family, 1, Maglev);
        scene.open();
        serve(&mut scene, family, 9, Maglev);
        let [vip, client, _] = &family.ends();
        let ended = scene.send(hook, &packet(SYN, client, vip));
        assert_eq!(ended.reason, Reason::NoRoute, "{hook:?} {family:?}");
        let ended = scene.send(hook, &packet(SYN, client, &family.vip(9)));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {family:?}");
    }
}

#[test]
fn routes_that_the_next_process_does_not_renew_are_gone_once_it_is_in_step() {
    let mut scene = Scene::new();
    scene.open();
    let frame = |family: Family| packet(SYN, &family.at(1, 5, 40_000), &family.at(2, 3, 80));
    for (hook, family) in each() {
        let ended = scene.send(hook, &frame(family));
        assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {family:?}");
    }
    scene.get().fib_synced();
    for (hook, family) in each() {
        let ended = scene.send(hook, &frame(family));
        assert_eq!(ended.reason, Reason::NoRoute, "{hook:?} {family:?}");
    }
}

#[test]
fn pinned_maps_of_another_size_are_refused_by_name_with_the_remedy() {
    let mut scene = Scene::new();
    scene.serve(VIP, Tcp, Maglev, &BACKENDS);
    scene.dataplane = None;
    let mut other = scene.options.clone();
    other.sizes = Sizes { flow_entries: 8192, ..small() };
    let Err(error) = Dataplane::open(&other) else { panic!("opened with maps of another size") };
    let OpenError::Mismatch { map, pinned, wanted: 8192, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(map, "FLOWS");
    assert!(error.to_string().contains(&format!("number of entries {pinned}, ")), "{error}");
    // What it says is there is what the table is opened with.
    let mut same = scene.options.clone();
    same.sizes = Sizes { flow_entries: *pinned, ..small() };
    assert!(small().flow_entries.abs_diff(*pinned) < 16, "{pinned}");
    drop(Dataplane::open(&same).unwrap());
    // The refusal changed nothing.
    scene.open();
    assert_eq!(scene.send(BOTH[0], &packet(SYN, CLIENT, VIP)).reason, Reason::ForwardedToBackend);
}

#[test]
fn pins_of_another_layout_are_removed_and_not_read() {
    let mut scene = Scene::new();
    scene.dataplane = None;
    let other = scene.options.pin_dir.join("0123456789abcdef");
    std::fs::create_dir_all(other.join("maps")).unwrap();
    scene.open();
    assert!(scene.get().adopted());
    assert!(other.exists(), "no program of ours has been loaded: the other lbd may come back");
    scene.get().program(Hook::Tc).unwrap();
    assert!(!other.exists());
    // That other one was tried and came to nothing: what is taken over is as good as what is loaded.
    std::fs::create_dir_all(other.join("maps")).unwrap();
    scene.open();
    scene.get().program(Hook::Tc).unwrap();
    assert!(!other.exists());
}

#[test]
fn programs_are_loaded_when_they_are_needed_and_taken_over_by_the_next_process_of_the_same_build() {
    let mut scene = Scene::untouched();
    let names = |scene: &Scene| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        scene.programs().iter().map(name).collect::<Vec<_>>()
    };
    let id = |scene: &mut Scene| scene.get().program(Hook::Tc).unwrap().info().unwrap().id();
    assert_eq!(names(&scene), ["lbd_age", "lbd_age6"]);
    let first = id(&mut scene);
    assert_eq!(names(&scene), ["lbd_age", "lbd_age6", "lbd_tc"]);

    scene.open();
    assert_eq!(id(&mut scene), first, "the one that is there");
    // Another constant in it makes it another program, and so does another map.
    let before = scene.programs();
    scene.options.sample_every = 2;
    scene.open();
    let second = id(&mut scene);
    assert_ne!(second, first);
    assert_eq!(names(&scene), ["lbd_age", "lbd_age6", "lbd_tc"]);
    assert!(before.iter().all(|path| !path.exists()), "what nobody takes over is not kept");
    assert_eq!(scene.arrays().len(), 1, "nor what it led to");
    scene.dataplane = None;
    let is_map = |path: &&PathBuf| path.ends_with("maps/FLOWS");
    std::fs::remove_file(scene.pins().iter().find(is_map).unwrap()).unwrap();
    scene.open();
    assert_ne!(id(&mut scene), second);
}

#[test]
fn a_program_that_has_lost_what_it_leads_to_drops_what_is_not_its_own_counted_and_is_loaded_anew() {
    let mut scene = Scene::new();
    for (hook, family) in each() {
        let vip = &family.vip(1);
        serve(&mut scene, family, 1, Maglev);
        let client = family.at(1, 5, 40_000 + hook as u16);
        let backend = scene.send(hook, &packet(SYN, &client, vip)).frame().to;
        scene.send(hook, &packet(SYN_ACK, &backend.to_string(), &client));
        scene.send(hook, &packet(ACK, &client, vip));
        let id = |scene: &mut Scene| scene.get().program(hook).unwrap().info().unwrap().id();
        // Who has loaded it has the array open.
        scene.open();
        let first = id(&mut scene);
        // The kernel empties an array that nobody in user space holds, as soon as it comes to it.
        scene.arrays().iter().for_each(|array| std::fs::remove_file(array).unwrap());
        let other = family.at(1, 6, 50_000 + hook as u16);
        let deadline = Instant::now() + Duration::from_secs(5);
        while scene.send(hook, &packet(SYN, &other, vip)).reason != Reason::TableFault {
            assert!(Instant::now() < deadline, "{hook:?} {family:?}: it is never emptied");
        }
        let established = scene.send(hook, &packet(ACK, &client, vip));
        assert_eq!(established.reason, Reason::ForwardedToBackend, "{hook:?} {family:?}");
        scene.open();
        assert_ne!(id(&mut scene), first, "{hook:?} {family:?}");
        let ended = scene.send(hook, &packet(SYN, &other, vip));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?} {family:?}");
    }
}

#[test]
fn destroy_leaves_nothing_behind() {
    // Its bpffs goes with who has mounted it.
    let mut scene = Scene::untouched();
    let dataplane = scene.dataplane.take().unwrap();
    dataplane.destroy().unwrap();
    assert_eq!(std::fs::read_dir(&scene.options.pin_dir).unwrap().count(), 0);
}

#[test]
fn clean_takes_away_what_any_build_left_without_reading_it() {
    let mut scene = Scene::new();
    let pin_dir = scene.options.pin_dir.clone();
    scene.get().program(Hook::Tc).unwrap();
    scene.dataplane = None;
    std::fs::create_dir_all(pin_dir.join("0123456789abcdef/maps")).unwrap();
    let others = pin_dir.join("of-somebody-else");
    std::fs::create_dir(&others).unwrap();
    assert_eq!(clean(&pin_dir).unwrap(), Some(vec![]));
    // Files there are the kernel's.
    let left = std::fs::read_dir(&pin_dir).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(left.filter(|path| path.is_dir()).collect::<Vec<_>>(), [others]);
    // No bpffs: nothing of ours, whatever it is called.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("links")).unwrap();
    assert_eq!(clean(folder.path()).unwrap(), None);
    assert!(folder.path().join("links").exists());
    assert_eq!(clean(&folder.path().join("nowhere")).unwrap(), None);
}

#[test]
fn an_audit_finds_what_somebody_else_wrote_and_mends_it_under_packets() {
    let mut scene = Scene::new();
    scene.sources =
        vec![Source { address: [192, 0, 2, 200].into(), first_port: 1024, last_port: 65_535 }];
    scene.access = vec![Access { prefix: "10.1.0.0/16".parse().unwrap(), is_admitted: true }];
    scene.more_ports = 3;
    scene.serve(VIP, Tcp, Maglev, &BACKENDS);
    let audit = scene.get().audit(false).unwrap();
    assert_eq!((audit.told, audit.services, audit.backends), (vec![], 1, 2));
    let mut port = 40_000;
    let mut arrives = |scene: &mut Scene| {
        port += 1;
        let client = format!("10.1.0.5:{port}");
        BOTH.map(|hook| scene.send(hook, &packet(SYN, &client, VIP)).reason)
    };
    let forwarded = [Reason::ForwardedToBackend; 2];
    assert_eq!(arrives(&mut scene), forwarded);

    // The ring's length is one of the entry's words.
    let mut services: HashMap<_, [u8; 20], [u8; 32]> =
        scene.get().map_mut("SERVICES").unwrap().try_into().unwrap();
    let is_the_service = |(key, _): &([u8; 20], [u8; 32])| key[18] != 0;
    let (key, mut entry) = services.iter().map(Result::unwrap).find(is_the_service).unwrap();
    entry[8] ^= 1;
    services.insert(key, entry, 0).unwrap();
    let mut backends: Array<_, [u8; 64]> =
        scene.get().map_mut("BACKENDS").unwrap().try_into().unwrap();
    for id in 0..2 {
        let mut entry = backends.get(&id, 0).unwrap();
        // Its flags: nobody's.
        entry[18] = 0;
        backends.set(id, entry, 0).unwrap();
    }
    let mut rings: Array<_, [u32; 1024]> =
        scene.get().map_mut("RINGS").unwrap().try_into().unwrap();
    rings.set(0, [63; 1024], 0).unwrap();
    let mut sources: Array<_, [u8; 24]> =
        scene.get().map_mut("SOURCES").unwrap().try_into().unwrap();
    sources.set(0, [0; 24], 0).unwrap();
    let mut lists: Array<_, [u64; 512]> =
        scene.get().map_mut("ACCESS_NODES").unwrap().try_into().unwrap();
    lists.set(0, [0; 512], 0).unwrap();
    let mut ranges: LpmTrie<_, [u8; 20], u32> =
        scene.get().map_mut("RANGES").unwrap().try_into().unwrap();
    let key = ranges.keys().next().unwrap().unwrap();
    ranges.remove(&key).unwrap();
    assert_ne!(arrives(&mut scene), forwarded, "the damage is felt");

    let audit = scene.get().audit(false).unwrap();
    let counts = [audit.wrong_services, audit.wrong_backends, audit.wrong_rings];
    assert_eq!((counts, audit.wrong_sources, audit.wrong_prefixes), ([1, 2, 1], 1, 2));
    assert!(
        audit.told.iter().all(|told| told.contains("192.0.2.1:80") || told.contains("list of"))
    );
    assert_ne!(arrives(&mut scene), forwarded, "an audit alone changes nothing");
    assert_eq!(scene.get().audit(true).unwrap().differences(), 7);
    assert_eq!(scene.get().audit(false).unwrap().told, Vec::<String>::new());
    assert_eq!(arrives(&mut scene), forwarded);
}
