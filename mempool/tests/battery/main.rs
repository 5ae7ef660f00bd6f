//! The battery that a Cortex-M0 runs as well, on the host: see `examples/thumbv6m-tests`.

#[allow(unreachable_pub)]
mod battery;

use mempool::FRAME_SIZE;

#[test]
fn every_part_does_what_it_does_on_a_target_without_compare_and_swap() {
    let mut memory = vec![0u8; (battery::FRAMES + 1) * FRAME_SIZE];
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..][..battery::FRAMES * FRAME_SIZE];
    let mut names = Vec::new();
    battery::run(memory, 20_000, &mut |name| names.push(name.to_string()));
    assert!(names.iter().eq(battery::TESTS.map(|(name, _)| name).iter()));
}
