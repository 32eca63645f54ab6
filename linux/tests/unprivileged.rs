//! The other tests once more, as a user without rights: then userfaultfd serves accesses in user mode only.

#![allow(clippy::cast_possible_truncation)] // 64 bits

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const NOBODY: u32 = 65534;

/// The programs of the other tests, which are built beside this one.
fn programs() -> Vec<PathBuf> {
    let ours = std::env::current_exe().unwrap();
    let mut newest: Vec<(String, std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in ours.parent().unwrap().read_dir().unwrap().flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((name, _)) = name.rsplit_once('-').filter(|_| path.extension().is_none()) else { continue };
        if !["mapping", "detach", "close", "signals"].contains(&name) {
            continue;
        }
        let Ok(built) = entry.metadata().and_then(|about| about.modified()) else { continue };
        match newest.iter_mut().find(|(other, ..)| other == name) {
            Some(known) if known.1 < built => *known = (name.into(), built, path),
            Some(_) => {}
            None => newest.push((name.into(), built, path)),
        }
    }
    newest.into_iter().map(|(.., path)| path).collect()
}

#[test]
fn the_tests_pass_as_nobody() {
    // SAFETY: asks who we are.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can become nobody; but then these tests run without rights already");
        return;
    }
    for program in programs() {
        // A copy, since nobody may not be able to go where it is.
        let copy = std::env::temp_dir().join(format!(
            "upager-{}-{}",
            std::process::id(),
            program.file_name().unwrap().display()
        ));
        std::fs::copy(&program, &copy).unwrap();
        let output = Command::new(&copy).arg("--nocapture").uid(NOBODY).gid(NOBODY).current_dir("/").output();
        std::fs::remove_file(&copy).unwrap();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                println!("skipped: nobody cannot run {}: {error}", program.display());
                continue;
            }
        };
        let (told, cried) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{told}\n{cried}", program.display());
        let line = told.lines().filter(|line| line.starts_with("test result")).collect::<String>();
        println!("{}: {line}", program.display());
    }
}
