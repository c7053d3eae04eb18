//! What a process leaves in the kernel, and what the next one makes of it.

use lb_dataplane::table::Algorithm::{Maglev, RoundRobin};
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Dataplane, OpenError, Reason, Sizes};

use crate::frame::{ACK, SYN, SYN_ACK, packet};
use crate::scene::{BOTH, Scene, small};

const VIP: &str = "192.0.2.1:80";
const CLIENT: &str = "10.1.0.5:40000";
const BACKENDS: [&str; 2] = ["10.2.0.1:80", "10.2.0.2:80"];

#[test]
fn flows_services_routes_and_counters_outlive_the_process() {
    for hook in BOTH {
        let mut scene = Scene::new();
        assert!(!scene.get().adopted());
        scene.serve(VIP, Tcp, RoundRobin, &BACKENDS);
        let backend = scene.send(hook, &packet(SYN, CLIENT, VIP)).frame().to;
        scene.open();
        assert!(scene.get().adopted());
        let ended = scene.send(hook, &packet(ACK, CLIENT, VIP));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
        assert_eq!(ended.frame().to, backend);
        let other = scene.send(hook, &packet(SYN, "10.1.0.5:40001", VIP)).frame().to;
        assert_ne!(other, backend, "the turn goes on");
        let back = packet(SYN_ACK, &backend.to_string(), CLIENT);
        assert_eq!(scene.send(hook, &back).reason, Reason::ForwardedToClient);
        assert_eq!(scene.count(Reason::ForwardedToBackend), 3);

        // Applying the same table changes nothing that packets see.
        scene.serve(VIP, Tcp, RoundRobin, &BACKENDS);
        let third = scene.send(hook, &packet(SYN, "10.1.0.5:40002", VIP)).frame().to;
        assert_eq!(third, backend, "the turn goes on still");
        let counters = scene.get().service_counters().unwrap();
        assert_eq!(counters.values().next().unwrap().flows, 3, "{hook:?}");
    }
}

#[test]
fn a_service_that_the_next_process_does_not_want_is_gone() {
    let mut scene = Scene::new();
    scene.serve(VIP, Tcp, Maglev, &BACKENDS);
    scene.open();
    scene.apply(&[("192.0.2.9:80", Tcp, Maglev, &BACKENDS)]);
    for hook in BOTH {
        let ended = scene.send(hook, &packet(SYN, CLIENT, VIP));
        assert_eq!(ended.reason, Reason::NoRoute, "{hook:?}");
        let port = format!("10.1.0.6:{}", 5000 + hook as u16);
        let ended = scene.send(hook, &packet(SYN, &port, "192.0.2.9:80"));
        assert_eq!(ended.reason, Reason::ForwardedToBackend, "{hook:?}");
    }
}

#[test]
fn routes_that_the_next_process_does_not_renew_are_gone_once_it_is_in_step() {
    let mut scene = Scene::new();
    scene.open();
    let frame = packet(SYN, CLIENT, "10.2.0.3:80");
    for hook in BOTH {
        assert_eq!(scene.send(hook, &frame).reason, Reason::Forwarded, "{hook:?}");
    }
    scene.get().fib_synced();
    for hook in BOTH {
        assert_eq!(scene.send(hook, &frame).reason, Reason::NoRoute, "{hook:?}");
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
    let OpenError::Mismatch { map, pinned: 4096, wanted: 8192, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(map, "FLOWS");
    assert!(error.to_string().contains("number of entries 4096"), "{error}");
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
    assert!(!other.exists());
}

#[test]
fn destroy_leaves_nothing_behind() {
    let mut scene = Scene::new();
    let dataplane = scene.dataplane.take().unwrap();
    dataplane.destroy().unwrap();
    assert_eq!(std::fs::read_dir(&scene.options.pin_dir).unwrap().count(), 0);
}
