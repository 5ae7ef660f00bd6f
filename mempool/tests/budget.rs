//! A reserve that is too small does not compile, and the compiler tells both numbers.
//!
//! `budget.rs` needs nothing of the rest of its crate, so that the compiler can be asked about it
//! alone.

use std::path::Path;
use std::process::{Command, Output};

fn compile(name: &str, item: &str) -> Output {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = temporary.join(name).with_extension("rs");
    let budget = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/budget.rs");
    let text = format!("#[path = {budget:?}] pub mod budget;\nuse budget::Budget;\n{item}\n");
    std::fs::write(&source, text).unwrap();
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args(if cfg!(feature = "slab-debug") {
            &["--cfg=feature=\"slab-debug\""][..]
        } else {
            &[]
        })
        .arg("--out-dir")
        .arg(temporary)
        .arg(&source)
        .output()
        .unwrap()
}

#[test]
fn a_reserve_that_is_too_small_refuses_to_build() {
    let rx = "const RX: Budget = Budget::objects(132, 200, 0);";
    let enough = format!("{rx} const _: () = RX.assert_fits(RX.frames());");
    let output = compile("enough", &enough);
    assert!(output.status.success(), "{output:?}");

    let short = format!("{rx} const _: () = RX.assert_fits(RX.frames() - 1);");
    let output = compile("short", &short);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let needed = mempool::Budget::objects(132, 200, 0).frames();
    let message = format!(
        "the reserve is smaller than its components can need: {needed} frames needed, {} given",
        needed - 1
    );
    assert!(
        errors.contains("E0080") && errors.contains(&message),
        "{errors}"
    );
}

#[test]
fn a_budget_beyond_any_memory_refuses_to_build() {
    let item = "pub const HUGE: Budget = Budget::runs(usize::MAX, 1);";
    let output = compile("huge", item);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("a budget beyond any memory"));
}
