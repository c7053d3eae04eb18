//! How much work the programs are to the verifier.

use std::collections::BTreeSet;

use aya::programs::{ProgramInfo, loaded_programs};

use crate::scene::{BOTH, Scene};
use crate::spare;

/// The verifier gives up at 1,000,000 instructions processed; the pipeline is to stay far from it as it grows.
const BOUND: u32 = 300_000;

#[test]
fn verifier_processes_few_instructions_for_every_program() {
    let mut scene = Scene::new();
    for hook in BOTH {
        scene.get().program(hook).unwrap();
    }
    let pinned = scene.programs().into_iter().map(|pin| ProgramInfo::from_pin(pin).unwrap());
    let arrays = scene.arrays();
    let led_to: BTreeSet<_> = arrays.iter().map(|array| spare::first_of(array).unwrap()).collect();
    let led_to =
        loaded_programs().filter_map(Result::ok).filter(|info| led_to.contains(&info.id()));
    let mut names = BTreeSet::new();
    for info in pinned.chain(led_to) {
        let name = info.name_as_str().unwrap().to_owned();
        let processed = info.verified_instruction_count().unwrap();
        println!(
            "{name}: {processed} instructions processed, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(processed > 1000, "{name}: {processed}: is this the pipeline?");
        assert!(processed < BOUND, "{name}: {processed}");
        names.insert(name);
    }
    let all = ["lbd_age", "lbd_age6", "lbd_tc", "lbd_tc_long", "lbd_xdp", "lbd_xdp_long"];
    assert_eq!(names, all.map(str::to_owned).into());
}
