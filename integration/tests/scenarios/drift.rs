//! What somebody else does to the maps that lbd has written.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use integration::wait::eventually;
use lb_api_types::config::Hook;

use crate::hello::{Hello, Holds, SOON};
use crate::traffic::{goes_on, while_transferring};

/// The pin of one of lbd's maps.
fn pin(hello: &Hello, map: &str) -> Result<PathBuf> {
    let bpf = hello.lab.folder().join("lbd").join("bpf");
    let pins = hello.lab.run("lbd", &format!("find {} -name {map}", bpf.display()))?;
    let pin = pins.lines().next().with_context(|| format!("{map} is not pinned: {pins}"))?;
    Ok(pin.into())
}

fn data(hello: &Hello, map: &str) -> MapData {
    MapData::from_pin(pin(hello, map).holds()).expect("root may open it")
}

#[test]
fn doctor_finds_what_others_wrote_into_the_maps_and_repairs_it_while_traffic_goes_on() {
    let (mut hello, vip) = Hello::up_with_vip(Hook::Tc);
    while_transferring(&mut hello, &vip, |hello, arrived| {
        let lbctl = |line: &str| hello.lbctl(line).holds();
        let (text, code) = lbctl("doctor services");
        assert!(code == 0 && text.contains("compared 1 services and 3 backends"), "{code} {text}");

        // As `bpftool map update` does it: nobody is a backend any more, and no port is the VIP's.
        let map = Map::Array(data(hello, "BACKENDS"));
        let mut backends: Array<_, [u8; 64]> = map.try_into().expect("an array of 64 bytes");
        for id in 0..3 {
            backends.set(id, [0; 64], 0).expect("root may write");
        }
        let map = Map::HashMap(data(hello, "SERVICES"));
        let mut services: HashMap<_, [u8; 20], [u8; 32]> = map.try_into().expect("20 and 32 bytes");
        let keys: Vec<[u8; 20]> = services.keys().map(|key| key.expect("it is read")).collect();
        for key in keys {
            services.remove(&key).expect("root may write");
        }
        assert!(hello.request(&vip).is_err(), "the damage is felt");
        let (text, code) = lbctl("doctor");
        assert_eq!(code, 4, "{text}");
        for words in [
            "are not as lbd wrote them: the service tcp 203.0.113.10:80 is missing, and 4 more",
            "remedy: `lbctl doctor services --repair`",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let (text, code) = lbctl("doctor services");
        assert!(code == 4 && text.contains("the service tcp 203.0.113.10:80 is missing"), "{text}");
        assert!(hello.request(&vip).is_err(), "who only asks changes nothing");

        let (text, code) = lbctl("doctor services --repair");
        assert!(code == 4 && text.contains("written again"), "{code} {text}");
        let (text, code) = lbctl("doctor services");
        assert!(code == 0 && text.contains("are as lbd wrote them"), "{code} {text}");
        assert!(!lbctl("doctor").0.contains("maps are not"), "nothing is found any more");
        hello.is_answered(&vip);
        goes_on(arrived, "the transfer noticed nothing");
        eventually("events tell how many flows there are", SOON, || {
            let (text, _) = hello.lbctl("events")?;
            ensure!(text.contains("flows-changed"), "{text}");
            Ok(())
        })
        .holds();
    });
}
