//! How much work the programs are to the verifier.

use aya::programs::ProgramInfo;

use crate::scene::{BOTH, Scene};

/// The verifier gives up at 1,000,000 instructions processed; the pipeline is to stay far from it as it grows.
const BOUND: u32 = 300_000;

#[test]
fn verifier_processes_few_instructions_for_every_program() {
    let mut scene = Scene::new();
    for hook in BOTH {
        scene.get().program(hook).unwrap();
    }
    let mut names = Vec::new();
    for pin in scene.programs() {
        let info = ProgramInfo::from_pin(&pin).unwrap();
        let name = pin.file_name().unwrap().to_str().unwrap().to_owned();
        let processed = info.verified_instruction_count().unwrap();
        println!(
            "{name}: {processed} instructions processed, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(processed > 1000, "{name}: {processed}: is this the pipeline?");
        assert!(processed < BOUND, "{name}: {processed}");
        names.push(name);
    }
    assert_eq!(names, ["lbd_age", "lbd_age6", "lbd_tc", "lbd_xdp"]);
}
