//! The seek table: where each frame of a compressed image lies, as the format has it.
//!
//! The format is zstd's contrib/seekable_format/zstd_seekable_compression_format.md, version 0.1.0. An image is
//! frames, each of which can be decompressed alone, and then one skippable frame, all numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | 0x184D2A5E, a skippable frame |
//! | 4 | bytes of what follows |
//! | n x 8 or 12 | of each frame: bytes compressed, bytes decompressed, and perhaps the low half of the XXH64 of what it decompresses to |
//! | 4 | n |
//! | 1 | bit 7: there are checksums; bits 6 to 2: zero; bits 1 and 0: ignored |
//! | 4 | 0x8F92EAB1 |

use std::ops::Range;

use thiserror::Error;

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
const HEADER: u64 = 8;
/// Frames at most: the format's limit.
pub(super) const MOST_FRAMES: usize = 0x800_0000;
/// Bytes that a frame decompresses to, at most: the format's limit.
pub(super) const LARGEST_FRAME: u32 = 0x4000_0000;

/// What is wrong with an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Defect {
    #[error("it does not end in a zstd seek table")]
    NoTable,
    #[error("its seek table is of a later version of the format")]
    Later,
    #[error("its seek table says that it is larger than the image")]
    TableTooLarge,
    #[error("its seek table does not begin where it should")]
    NoHeader,
    #[error("its seek table has more, or larger, frames than the format allows")]
    TooLarge,
    #[error("its seek table does not add up to the size of the image")]
    DoesNotAddUp,
}

/// The last bytes of an image: how large the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    frames: u32,
    checksums: bool,
}

impl Footer {
    /// Bytes of it.
    pub(super) const SIZE: usize = 9;

    /// Reads it from the end of these bytes.
    pub(super) fn parse(image: &[u8]) -> Result<Self, Defect> {
        let Some(&[a, b, c, d, descriptor, ref magic @ ..]) = image.last_chunk::<{ Self::SIZE }>() else {
            return Err(Defect::NoTable);
        };
        if u32::from_le_bytes(*magic) != SEEKABLE {
            return Err(Defect::NoTable);
        }
        if descriptor & 0b0111_1100 != 0 {
            return Err(Defect::Later);
        }
        let frames = u32::from_le_bytes([a, b, c, d]);
        if frames as usize > MOST_FRAMES {
            return Err(Defect::TooLarge);
        }
        Ok(Self { frames, checksums: descriptor & 0x80 != 0 })
    }

    fn entry(self) -> usize {
        if self.checksums { 12 } else { 8 }
    }

    /// Bytes of the table, this included.
    pub(super) fn table_size(self) -> u64 {
        HEADER + u64::from(self.frames) * self.entry() as u64 + Self::SIZE as u64
    }
}

/// A frame: where it lies compressed and decompressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) packed: Range<u64>,
    pub(super) bytes: Range<u64>,
    pub(super) checksum: Option<u32>,
}

/// Where a frame ends; it begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct End {
    packed: u64,
    bytes: u64,
    checksum: u32,
}

/// All frames of an image.
#[derive(Debug)]
pub(super) struct Table {
    ends: Vec<End>,
    checksums: bool,
    largest: u32,
}

impl Table {
    /// Reads a whole table, header and footer included, of an image of so many bytes.
    pub(super) fn parse(footer: Footer, table: &[u8], image: u64) -> Result<Self, Defect> {
        let size = footer.table_size();
        if table.len() as u64 != size || size > image {
            return Err(Defect::TableTooLarge);
        }
        let number = |at: usize| u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]);
        if number(0) != SKIPPABLE || u64::from(number(4)) != size - HEADER {
            return Err(Defect::NoHeader);
        }
        let mut ends = Vec::with_capacity(footer.frames as usize);
        let mut end = End { packed: 0, bytes: 0, checksum: 0 };
        let mut largest = 0;
        for nth in 0..footer.frames as usize {
            let at = HEADER as usize + nth * footer.entry();
            let (packed, bytes) = (number(at), number(at + 4));
            if bytes > LARGEST_FRAME {
                return Err(Defect::TooLarge);
            }
            largest = largest.max(bytes);
            end.packed += u64::from(packed); // 2^27 times 2^32 fits
            end.bytes += u64::from(bytes);
            end.checksum = if footer.checksums { number(at + 8) } else { 0 };
            ends.push(end);
        }
        if end.packed + size != image {
            return Err(Defect::DoesNotAddUp);
        }
        Ok(Self { ends, checksums: footer.checksums, largest })
    }

    /// Bytes of the image, decompressed.
    pub(super) fn len(&self) -> u64 {
        self.ends.last().map_or(0, |end| end.bytes)
    }

    /// Bytes of the largest frame, decompressed.
    pub(super) fn largest(&self) -> u32 {
        self.largest
    }

    /// The frames that have any of these bytes, in order.
    pub(super) fn frames(&self, bytes: Range<u64>) -> impl Iterator<Item = Frame> + '_ {
        let first = self.ends.partition_point(|end| end.bytes <= bytes.start);
        (first..self.ends.len())
            .map(|nth| self.frame(nth))
            .take_while(move |frame| frame.bytes.start < bytes.end)
            .filter(|frame| !frame.bytes.is_empty())
    }

    fn frame(&self, nth: usize) -> Frame {
        let end = self.ends[nth];
        let (packed, bytes) = match nth {
            0 => (0, 0),
            _ => (self.ends[nth - 1].packed, self.ends[nth - 1].bytes),
        };
        Frame { packed: packed..end.packed, bytes: bytes..end.bytes, checksum: self.checksums.then_some(end.checksum) }
    }
}

/// The table of frames of (bytes compressed, bytes decompressed, checksum).
pub(super) fn encode(frames: &[(u32, u32, u32)]) -> Vec<u8> {
    let footer = Footer { frames: frames.len() as u32, checksums: true };
    let size = footer.table_size();
    let mut table = Vec::with_capacity(size as usize);
    table.extend(SKIPPABLE.to_le_bytes());
    table.extend(((size - HEADER) as u32).to_le_bytes()); // 2^27 times 12 and a little fits
    for (packed, bytes, checksum) in frames {
        table.extend([packed, bytes, checksum].into_iter().flat_map(|number| number.to_le_bytes()));
    }
    table.extend(footer.frames.to_le_bytes());
    table.push(0x80);
    table.extend(SEEKABLE.to_le_bytes());
    table
}

/// The checksum of what a frame decompresses to.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    twox_hash::XxHash64::oneshot(0, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(table: &[u8], image: u64) -> Result<Table, Defect> {
        let footer = Footer::parse(table)?;
        Table::parse(footer, table, image)
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = encode(&[(10, 100, 1), (5, 0, 2), (20, 50, 3)]);
        let image = 35 + table.len() as u64;
        let read = parse(&table, image).unwrap();
        assert_eq!((read.len(), read.largest()), (150, 100));
        let frames = |bytes| read.frames(bytes).map(|frame| frame.checksum.unwrap()).collect::<Vec<_>>();
        assert_eq!(frames(0..1), [1]);
        assert_eq!(frames(99..100), [1]);
        assert_eq!(frames(99..101), [1, 3]);
        assert_eq!(frames(100..150), [3]);
        assert_eq!(frames(150..200), []);
        let last = Frame { packed: 15..35, bytes: 100..150, checksum: Some(3) };
        assert_eq!(read.frames(100..101).next(), Some(last));
    }

    #[test]
    fn every_defect_is_told_apart() {
        let table = encode(&[(10, 100, 1)]);
        let image = 10 + table.len() as u64;
        let with = |at: usize, byte: u8| {
            let mut table = table.clone();
            table[at] = byte;
            parse(&table, image).unwrap_err()
        };
        let last = table.len() - 1;
        assert_eq!(with(last, 0), Defect::NoTable);
        assert_eq!(with(last - 4, 0x84), Defect::Later);
        assert_eq!(with(last - 4, 0), Defect::TableTooLarge);
        assert_eq!(with(last - 5, 0xFF), Defect::TooLarge);
        assert_eq!(with(0, 0), Defect::NoHeader);
        assert_eq!(with(4, 0), Defect::NoHeader);
        assert_eq!(with(8, 11), Defect::DoesNotAddUp);
        assert_eq!(with(15, 0x80), Defect::TooLarge);
        assert_eq!(parse(&table, 5).unwrap_err(), Defect::TableTooLarge);
    }

    #[test]
    fn the_checksum_is_the_low_half_of_xxh64() {
        assert_eq!(checksum(b""), 0xEF46_DB37_51D8_E999_u64 as u32); // xxHash's specification, section 2
    }
}
