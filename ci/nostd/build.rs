//! Links without the start files and without libc: what is missing would be std's.

fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg={argument}");
    }
}
