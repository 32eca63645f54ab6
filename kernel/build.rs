//! Packs the image that the pager task supplies from, and says how the kernel is linked.

use std::path::Path;
use std::{env, fs, io};

#[path = "src/load/plan.rs"]
#[allow(dead_code)]
mod plan;

fn main() -> io::Result<()> {
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let (mut pages, mut ends) = (Vec::new(), Vec::new());
    for vmo in 0..plan::VMOS {
        for page in 0..plan::PAGES {
            let bytes: Vec<u8> =
                (0..plan::WORDS).flat_map(|word| plan::original(vmo, page, word).to_le_bytes()).collect();
            pages.extend(lz4_flex::block::compress(&bytes));
            ends.extend(u32::try_from(pages.len()).map_err(io::Error::other)?.to_le_bytes());
        }
    }
    fs::write(Path::new(&out).join("image.lz4"), pages)?;
    fs::write(Path::new(&out).join("image.ends"), ends)?;

    let folder = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/load/plan.rs");
    println!("cargo::rustc-link-arg=-T{folder}/link.ld");
    for argument in ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096"] {
        println!("cargo::rustc-link-arg={argument}");
    }
    Ok(())
}
