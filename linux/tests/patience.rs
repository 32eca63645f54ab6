//! That a test which waits in vain fails, whatever its other threads do.

mod world;

use std::process::Command;
use std::time::Duration;

#[test]
#[ignore = "it fails: the other test runs it"]
fn waits_in_vain() {
    std::thread::scope(|s| {
        s.spawn(|| {
            loop {
                std::thread::park();
            }
        });
        world::until_after(Duration::from_millis(10), "never", || false);
    });
}

#[test]
fn a_test_that_waits_in_vain_fails_and_does_not_hang() {
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this).args(["--ignored", "--exact", "waits_in_vain"]).output().unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.code() == Some(101) && said.contains("not in time: never"), "{}: {said}", child.status);
}
