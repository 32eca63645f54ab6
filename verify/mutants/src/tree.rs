//! A copy of the workspace, in which mistakes are made and built.
//!
//! Each job has one, with a target directory of its own, so that a mutant costs one incremental build of
//! the core and of the models. The named races are one binary there, since linking is what takes time.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

const RACES: &str = "all_races";
const TESTS: &str = "all_tests";
/// Of the behaviour tests, those that are left out: they take long.
const SLOW: [&str; 2] = ["linearizability", "real_threads"];

/// One copy.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
    /// Where its models write.
    desk: PathBuf,
    /// Its programs have many mistakes and make this one: they are built.
    pub(crate) chosen: Option<u32>,
}

/// Where the compiler found fault: in a file of the core, at a part of its text.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) at: Range<usize>,
    /// There it is wrong. Else the place has to do with it.
    pub(crate) is_primary: bool,
}

impl Tree {
    /// Brings the copy `number` below `home` up to date with the workspace.
    pub(crate) fn new(workspace: &Path, home: &Path, number: usize) -> Result<Self, Failure> {
        let root = home.join(format!("tree-{number}"));
        copy(workspace, &root)?;
        let tree = Self { desk: root.clone(), root, target: home.join(format!("target-{number}")), chosen: None };
        tree.combine("verify/tests", RACES, "#![cfg(loom)]\n", &[])?;
        tree.combine("tests/tests", TESTS, "", &SLOW)?;
        Ok(tree)
    }

    /// The same programs, making one of their mistakes, beside others who run them.
    pub(crate) fn choosing(&self, mistake: u32, job: usize) -> Result<Self, Failure> {
        let desk = self.root.join(format!("desk-{job}"));
        fs::create_dir_all(&desk).map_err(|error| Failure::file(&desk, &error))?;
        Ok(Self { desk, chosen: Some(mistake), ..self.clone() })
    }

    /// One test binary of all files in a folder.
    fn combine(&self, folder: &str, name: &str, head: &str, without: &[&str]) -> Result<(), Failure> {
        let folder = self.root.join(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|error| Failure::file(&folder, &error))? {
            let path = entry.map_err(|error| Failure::file(&folder, &error))?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if is_rust && stem != name && !without.contains(&stem.as_str()) {
                names.push(stem);
            }
        }
        names.sort();
        let modules = names.iter().map(|name| format!("#[path = \"{name}.rs\"]\nmod {name};\n"));
        let all = format!("{head}{}", modules.collect::<String>());
        write_if_other(&folder.join(format!("{name}.rs")), &all)
    }

    /// Takes over what another tree has built of other people's crates.
    pub(crate) fn reuse(&self, other: &Self) -> Result<(), Failure> {
        if self.target.exists() {
            return Ok(());
        }
        // By cp, which keeps the times that cargo goes by.
        let copied = Command::new("cp").arg("-a").arg(&other.target).arg(&self.target).status();
        let copied = copied.map_err(|error| Failure::file(&self.target, &error))?;
        if copied.success() { Ok(()) } else { Err(Failure::new(format!("cannot copy {}", other.target.display()))) }
    }

    /// Writes a file of the core.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), Failure> {
        write_if_other(&self.root.join("core/src").join(path), text)
    }

    /// Builds the matrix, whose cells notice most. False: it does not compile.
    pub(crate) fn build(&self) -> Result<bool, Failure> {
        self.build_models(&["--bin", "matrix"])
    }

    /// Builds the named races. False: they do not compile.
    pub(crate) fn build_races(&self) -> Result<bool, Failure> {
        self.build_models(&["--test", RACES])
    }

    /// Builds the models in which a thread stops. False: they do not compile.
    pub(crate) fn build_stopped(&self) -> Result<bool, Failure> {
        self.build_models(&["--bin", "stopped"])
    }

    /// Builds all models. Not `None`: it does not compile, for these faults in the core.
    pub(crate) fn build_all(&self) -> Result<Option<Vec<Fault>>, Failure> {
        let what = ["-p", "upager-verify", "--bin", "matrix", "--bin", "stopped", "--test", RACES];
        let built = self.cargo_with(&["build"], &what, "--cfg loom --cap-lints allow", &self.target)?;
        Ok((!built).then(|| self.faults()))
    }

    /// As [`build_all`](Self::build_all), of the behaviour tests.
    pub(crate) fn build_all_tests(&self) -> Result<Option<Vec<Fault>>, Failure> {
        let built = self.build_tests_anew()?;
        Ok((!built).then(|| self.faults()))
    }

    /// Where the compiler found fault last, as far as that is in the core.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for message in self.said().filter(|message| message["message"]["level"] == "error") {
            for span in message["message"]["spans"].as_array().into_iter().flatten() {
                let place = |name: &str| span[name].as_u64().and_then(|place| usize::try_from(place).ok());
                if let (Some(file), Some(start), Some(end)) =
                    (span["file_name"].as_str(), place("byte_start"), place("byte_end"))
                    && let Some((_, path)) = file.split_once("core/src/")
                {
                    faults.push(Fault {
                        path: path.to_string(),
                        at: start..end,
                        is_primary: span["is_primary"] == true,
                    });
                }
            }
        }
        faults
    }

    /// What the compiler said last.
    fn said(&self) -> impl Iterator<Item = serde_json::Value> {
        let log = fs::read_to_string(self.root.join("build.log")).unwrap_or_default();
        let said: Vec<_> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        said.into_iter()
    }

    fn build_models(&self, which: &[&str]) -> Result<bool, Failure> {
        if self.chosen.is_some() {
            return Ok(true);
        }
        self.cargo(&[&["-p", "upager-verify"], which].concat(), "--cfg loom --cap-lints allow", &self.target)
    }

    /// Builds the behaviour tests. False: it does not compile.
    pub(crate) fn build_tests(&self) -> Result<bool, Failure> {
        if self.chosen.is_some() {
            return Ok(true);
        }
        self.build_tests_anew()
    }

    fn build_tests_anew(&self) -> Result<bool, Failure> {
        let target = self.target.join("tests");
        let build = |what: &[&str]| self.cargo_with(&["test", "--no-run"], what, "--cap-lints allow", &target);
        Ok(build(&["-p", "upager-tests", "--test", TESTS])? && build(&["-p", "upager", "--lib"])?)
    }

    fn cargo(&self, what: &[&str], flags: &str, target: &Path) -> Result<bool, Failure> {
        self.cargo_with(&["build"], what, flags, target)
    }

    fn cargo_with(&self, command: &[&str], what: &[&str], flags: &str, target: &Path) -> Result<bool, Failure> {
        let log = self.root.join("build.log");
        let file = fs::File::create(&log).map_err(|error| Failure::file(&log, &error))?;
        let both = file.try_clone().map_err(|error| Failure::file(&log, &error))?;
        let built = Command::new("cargo")
            .args(command)
            .args(["--locked", "--quiet", "--profile", "mutant", "--message-format", "json"])
            .args(what)
            .current_dir(&self.root)
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", target)
            .stdout(both)
            .stderr(file)
            .status();
        built.map(|status| status.success()).map_err(|error| Failure::file(Path::new("cargo"), &error))
    }

    /// Why it did not build.
    pub(crate) fn build_log(&self) -> String {
        let rendered = |message: serde_json::Value| message["message"]["rendered"].as_str().map(String::from);
        self.said().filter_map(rendered).collect()
    }

    /// The program of the matrix.
    pub(crate) fn matrix(&self) -> PathBuf {
        self.target.join("mutant/matrix")
    }

    /// The program of the models in which a thread stops.
    pub(crate) fn stopped(&self) -> PathBuf {
        self.target.join("mutant/stopped")
    }

    /// The program of the races.
    pub(crate) fn races(&self) -> Result<PathBuf, Failure> {
        newest(&self.target, RACES)
    }

    /// The program of the behaviour tests.
    pub(crate) fn tests(&self) -> Result<PathBuf, Failure> {
        newest(&self.target.join("tests"), TESTS)
    }

    /// The program of the tests of the core's own modules.
    pub(crate) fn unit_tests(&self) -> Result<PathBuf, Failure> {
        newest(&self.target.join("tests"), "upager")
    }

    /// A file of the tree's own, for what its models say.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.desk.join(name)
    }
}

/// A test program: the newest, if there are several.
fn newest(target: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = target.join("mutant/deps");
    let entries = fs::read_dir(&folder).map_err(|error| Failure::file(&folder, &error))?;
    let programs = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}-")) && path.extension().is_none()
    });
    let newest = programs.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    newest.ok_or_else(|| Failure::new(format!("no {name} in {}", folder.display())))
}

/// Copies what differs, so that what does not is not built again, and removes what there is no more. What was built,
/// and what is hidden, is left out.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if from.is_dir() {
        fs::create_dir_all(to).map_err(|error| Failure::file(to, &error))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(from).map_err(|error| Failure::file(from, &error))? {
            let entry = entry.map_err(|error| Failure::file(from, &error))?;
            let name = entry.file_name();
            if name == "target" || name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            copy(&entry.path(), &to.join(&name))?;
            names.push(name);
        }
        for entry in fs::read_dir(to).map_err(|error| Failure::file(to, &error))?.flatten() {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !names.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).map_err(|error| Failure::file(&entry.path(), &error))?;
            }
        }
        return Ok(());
    }
    let bytes = fs::read(from).map_err(|error| Failure::file(from, &error))?;
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes).map_err(|error| Failure::file(to, &error))?;
    }
    Ok(())
}

fn write_if_other(path: &Path, text: &str) -> Result<(), Failure> {
    if fs::read_to_string(path).ok().as_deref() == Some(text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| Failure::file(path, &error))
}
