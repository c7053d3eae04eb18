//! How much work the programs are to the verifier.

use std::collections::BTreeSet;

use aya::programs::{ProgramInfo, loaded_programs};

use crate::scene::{BOTH, Scene};
use crate::spare;

/// The verifier gives up at 1,000,000 instructions processed; the pipeline is to stay far from it as it grows, and no program of it
/// may take what the others have room for.
const BOUND: u32 = 260_000;

#[test]
fn verifier_processes_few_instructions_for_every_program() {
    let mut scene = Scene::new();
    for hook in BOTH {
        scene.get().program(hook).unwrap();
    }
    let pinned = scene.programs().into_iter().map(|pin| ProgramInfo::from_pin(pin).unwrap());
    let arrays = scene.arrays();
    let led_to: BTreeSet<_> = arrays.iter().flat_map(|array| spare::programs_of(array)).collect();
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
    let of_a_hook =
        |hook: &str| ["", "_find", "_begin", "_begin6"].map(|rest| format!("lbd_{hook}{rest}"));
    let all = [of_a_hook("tc"), of_a_hook("xdp")].into_iter().flatten();
    let all = all.chain(["lbd_age", "lbd_age6"].map(str::to_owned));
    assert_eq!(names, all.collect());
}
