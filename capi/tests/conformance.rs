//! Builds the conformance suite, of tests/capi, with the system's C++ compiler, and runs it. ci/capi does that too, so it is
//! left out where it is not asked for: `cargo test -p upager-capi -- --ignored`.

#![cfg(not(loom))]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library, which cargo has built beside this test.
fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libupager_capi.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

#[test]
#[ignore = "needs a C++ compiler; ci/capi runs the suite"]
fn the_conformance_suite_passes() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/capi");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let built = Command::new(suite.join("build")).arg(library()).arg(&out).status();
    assert!(built.unwrap().success(), "the suite does not build");
    let run = Command::new(out.join("conformance")).arg("--quiet").output().unwrap();
    let (told, failures) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{failures}{told}{}", run.status);
    println!("{told}");
}
