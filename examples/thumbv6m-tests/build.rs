//! Hands `memory.x` to the linker: the size of the memory is checked when the firmware is linked.

fn main() {
    println!("cargo::rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=memory.x");
}
