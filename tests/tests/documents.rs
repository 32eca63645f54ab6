//! That what the documents name is there: tests, races, deliberate breaks.
//!
//! A document that leads to a test which has another name by now leads nowhere.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory that have this extension.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let paths = entries.map(|entry| entry.expect("the directory is read").path());
    paths.filter(|path| path.extension().is_some_and(|own| own == extension)).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file").to_string_lossy().into_owned()
}

fn is_of_a_name(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
}

/// Whether it has two words or more, as the names of tests have.
fn is_a_name(text: &str) -> bool {
    text.contains('_') && !text.starts_with('_')
}

/// What follows `before` in a text, as far as it is a name.
fn names_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| rest.split(|letter| !is_of_a_name(letter)).next().unwrap_or_default())
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The functions of a Rust file.
fn functions(path: &Path) -> Vec<String> {
    names_after(&read(path), "fn ").map(str::to_string).collect()
}

#[test]
fn the_tests_that_the_readme_names_are_there() {
    let tests =
        ["tests/tests", "tests/src", "capi/tests", "linux/tests"].map(|directory| files(directory, "rs")).concat();
    let tests: Vec<(String, Vec<String>)> = tests.iter().map(|path| (stem(path), functions(path))).collect();
    let mut cases = Vec::new();
    for path in files("tests/capi", "cc") {
        let text = read(&path);
        for case in text.split("CASE(").skip(1).filter_map(|rest| rest.split([')', '{']).next()) {
            cases.push(case.split(',').map(str::trim).collect::<Vec<_>>().join("."));
        }
    }
    assert!(tests.len() > 20 && cases.len() > 100, "{} files, {} cases", tests.len(), cases.len());

    let (mut named, mut missing) = (0, Vec::new());
    let readme = read("tests/README.md");
    for line in readme.lines().filter(|line| line.starts_with('|')) {
        let mut file = None;
        for name in code(line) {
            let begins = |function: &String| function.starts_with(name);
            let is_there = if let Some(last) = name.rsplit('/').next().and_then(|last| last.strip_suffix(".rs")) {
                file = tests.iter().find(|(name, _)| name == last);
                file.is_some()
            } else if name.split('.').count() == 2 && name.chars().all(|letter| is_of_a_name(letter) || letter == '.') {
                cases.iter().any(begins)
            } else if name.contains('_') && name.chars().all(is_of_a_name) {
                // Of the file that the line has named before, or of any.
                file.map_or_else(
                    || tests.iter().any(|(_, own)| own.iter().any(begins)),
                    |(_, own)| own.iter().any(begins),
                )
            } else {
                continue;
            };
            named += 1;
            if !is_there {
                missing.push(name);
            }
        }
    }
    assert!(named > 300, "{named} names");
    assert!(missing.is_empty(), "tests/README.md names what is not there: {missing:?}");
}

#[test]
fn what_the_proof_names_is_there() {
    let breaks: HashSet<String> = ["verify/breaks", "kernel/breaks"]
        .iter()
        .flat_map(|directory| files(directory, "patch"))
        .map(|path| stem(&path))
        .collect();
    let mut races = HashSet::new();
    for path in
        ["verify/tests", "verify/src", "tests/tests", "core/src", "core/src/table"].map(|of| files(of, "rs")).concat()
    {
        races.insert(stem(&path));
        races.extend(functions(&path));
    }
    let proof = read("docs/PROOF.md");
    let mut missing = Vec::new();
    let words: HashSet<&str> = proof.split(|letter| !is_of_a_name(letter)).filter(|word| is_a_name(word)).collect();
    missing.extend(words.iter().filter(|word| !races.contains(**word)).copied());
    let of_a_break =
        |name: &&str| name.contains('-') && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
    // A mutant is named by what it does to which statement; `mutants --list` has them.
    let of_a_mutant = |name: &&str| name.starts_with("without-") || name.contains("-after-");
    let bites: HashSet<&str> = code(&proof).filter(of_a_break).filter(|name| !of_a_mutant(name)).collect();
    missing.extend(bites.iter().filter(|name| !breaks.contains(**name)).copied());
    assert!(words.len() > 20 && bites.len() > 30, "{} names, {} breaks", words.len(), bites.len());
    assert!(missing.is_empty(), "docs/PROOF.md names what is not there: {missing:?}");
}
