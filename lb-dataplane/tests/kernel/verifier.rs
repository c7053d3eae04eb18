//! How much work the programs are to the verifier.

use aya::programs::Program;

use crate::scene::{BOTH, Scene};

/// The verifier gives up at 1,000,000 instructions processed; the pipeline is to stay far from it as it grows.
const BOUND: u32 = 300_000;

#[test]
fn verifier_processes_few_instructions_for_both_programs() {
    let scene = Scene::new();
    for hook in BOTH {
        let info = match scene.dataplane.as_ref().unwrap().program(hook).unwrap() {
            Program::SchedClassifier(program) => program.info(),
            Program::Xdp(program) => program.info(),
            other => panic!("{other:?}"),
        }
        .unwrap();
        let processed = info.verified_instruction_count().unwrap();
        println!(
            "{hook:?}: {processed} instructions processed, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(processed > 1000, "{hook:?}: {processed}: is this the pipeline?");
        assert!(processed < BOUND, "{hook:?}: {processed}");
    }
}
