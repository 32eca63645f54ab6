//! The headers, written by hand, against what the crate exports, as cbindgen reads it. A C compiler compares the two: it
//! does not take a second declaration that is not like the first.

#![cfg(not(loom))]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder, and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.append(&mut files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What the crate exports, as C.
fn exported() -> String {
    let mut config = cbindgen::Config { language: cbindgen::Language::C, no_includes: true, ..Default::default() };
    // Types of other crates, and structures: layouts are compared in types.rs and tests/capi/layout.h.
    for name in
        ["zx_info_handle_basic_t", "zx_info_vmo_t", "zx_port_packet_t", "zx_vmo_dirty_range_t", "zx_pager_vmo_stats_t"]
    {
        config.export.exclude.push(name.to_owned());
    }
    let mut builder = cbindgen::Builder::new().with_config(config).with_src(root().join("src/types.rs"));
    for file in files(&root().join("src/calls")) {
        builder = builder.with_src(file);
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

fn headers() -> String {
    files(&root().join("include")).iter().map(|header| fs::read_to_string(header).unwrap()).collect()
}

/// The names of the functions that are declared in it, one line each but for their arguments.
fn functions(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '/', '#'])) {
        if let Some((before, _)) = line.split_once('(')
            && let Some(name) = before.rsplit([' ', '*']).next()
            && name.starts_with("zx_")
        {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Names and values of the numbers that are defined in it.
fn numbers(text: &str) -> Vec<(&str, &str)> {
    let defined = text.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
    defined.filter(|(name, _)| name.starts_with("ZX_") && !name.contains('(')).collect()
}

/// Has the C compiler read it.
fn compile(name: &str, text: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, text).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]);
    let run = compiler.arg(root().join("include")).arg(&file).output().unwrap();
    if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stderr).into_owned()) }
}

#[test]
fn headers_declare_what_the_crate_exports_and_nothing_else() {
    let exported = functions(&exported());
    assert_eq!(functions(&headers()), exported);
    assert_eq!(exported.len(), 38, "{exported:?}");
}

#[test]
fn declarations_agree() {
    // After the headers: the same declarations once more, or an error.
    let again: String =
        exported().lines().filter(|line| !line.starts_with('#')).fold(String::new(), |mut all, line| {
            writeln!(all, "{line}").unwrap();
            all
        });
    compile("again.c", &format!("#include <upager.h>\n{again}")).unwrap();
    let other = again.replacen("zx_handle_close(zx_handle_t", "zx_handle_close(uint64_t", 1);
    assert_ne!(other, again);
    compile("other.c", &format!("#include <upager.h>\n{other}")).expect_err("a difference is seen");
}

#[test]
fn numbers_agree() {
    let exported = exported();
    let numbers = numbers(&exported);
    assert!(numbers.len() > 80, "{}", numbers.len());
    let mut text = String::from("#include <upager.h>\n");
    for (name, value) in numbers {
        writeln!(text, "_Static_assert({name} == ({value}), \"{name}\");").unwrap();
    }
    compile("numbers.c", &text).unwrap();
}

#[test]
fn each_header_can_be_included_alone() {
    for header in files(&root().join("include")) {
        let name = header.strip_prefix(root().join("include")).unwrap().display().to_string();
        compile(&name.replace(['/', '.'], "_").replace("_h", ".c"), &format!("#include <{name}>\n")).unwrap();
    }
}
