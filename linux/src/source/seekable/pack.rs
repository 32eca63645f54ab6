//! Making a compressed image.

use std::io::{self, Read, Write};

use upager::PageCount;

use super::table::{self, LARGEST_FRAME, MOST_FRAMES};
use crate::source::PageBuf;

/// How an image is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackOptions {
    /// zstd's level: 1 fast, 19 small; negative ones are faster still.
    pub level: i32,
    /// Pages that a frame decompresses to. A read of one page decompresses a whole frame, so this is the
    /// balance: small frames for scattered reads, large ones to compress better. At least one, at most 1 GiB.
    pub frame: PageCount,
}

impl Default for PackOptions {
    /// Level 3, frames of 128 KiB.
    fn default() -> Self {
        Self { level: 3, frame: PageCount(32) }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes of it compressed, the seek table included.
    pub packed_bytes: u64,
    /// Frames.
    pub frames: usize,
}

/// Compresses an image to one that a [`SeekableZstd`](super::SeekableZstd) reads, and any zstd
/// decompressor too: frames with checksums, then the seek table. Blocks, and writes in order, so a pipe will do.
///
/// ```
/// use upager_linux::source::{PackOptions, pack};
/// let mut image = Vec::new();
/// let packed = pack(&[7; 1 << 20][..], &mut image, PackOptions::default())?;
/// assert_eq!((packed.bytes, packed.frames), (1 << 20, 8));
/// assert_eq!(packed.packed_bytes, image.len() as u64);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of reading and writing; `InvalidInput` if the image has more frames than the format allows, 2^27.
pub fn pack(mut image: impl Read, mut to: impl Write, options: PackOptions) -> io::Result<Packed> {
    let frame_size =
        options.frame.0.saturating_mul(upager::PAGE_SIZE).clamp(PageBuf::PAGE as u64, LARGEST_FRAME.into());
    let mut compressor = zstd::bulk::Compressor::new(options.level)?;
    let (mut frame, mut packed) = (Vec::new(), Vec::new());
    let mut frames = Vec::new();
    let mut total = Packed { bytes: 0, packed_bytes: 0, frames: 0 };
    loop {
        frame.clear();
        image.by_ref().take(frame_size).read_to_end(&mut frame)?;
        if frame.is_empty() {
            break;
        }
        if frames.len() == MOST_FRAMES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many frames: make them larger"));
        }
        packed.clear();
        packed.reserve(zstd::zstd_safe::compress_bound(frame.len()));
        compressor.compress_to_buffer(&frame, &mut packed)?;
        to.write_all(&packed)?;
        frames.push((packed.len() as u32, frame.len() as u32, table::checksum(&frame)));
        total.bytes += frame.len() as u64;
        total.packed_bytes += packed.len() as u64;
    }
    let table = table::encode(&frames);
    to.write_all(&table)?;
    to.flush()?;
    Ok(Packed { packed_bytes: total.packed_bytes + table.len() as u64, frames: frames.len(), ..total })
}
