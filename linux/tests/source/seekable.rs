//! Compressed images: others' images, damaged images, and what is read of them.

use std::io::{Read, Write};

use proptest::prelude::*;
use upager::{PageCount, Status, block_on};
use upager_linux::source::{
    ErrorKind, Fault, Injector, Memory, Operation, PackOptions, PageSource, Rule, SeekableZstd, SourceError, pack,
};

use crate::{PAGE, contents, pattern, read};

fn packed(bytes: &[u8], pages: u64) -> Vec<u8> {
    let mut image = Vec::new();
    pack(bytes, &mut image, PackOptions { level: 3, frame: PageCount(pages) }).unwrap();
    image
}

fn open(image: &[u8]) -> Result<SeekableZstd<Memory>, SourceError> {
    block_on(SeekableZstd::open(Memory::new(image.to_vec())))
}

/// Bytes that compress a little.
fn text(len: usize, seed: u64) -> Vec<u8> {
    pattern(len, seed).into_iter().map(|byte| byte & 0x0F).collect()
}

#[test]
fn an_image_of_another_writer_is_read() {
    let bytes = text(300_000, 1);
    for (checksums, frame) in [(true, 4096), (false, 65_536), (true, 10_007), (false, 1 << 20)] {
        let mut image = Vec::new();
        let options = zeekstd::EncodeOptions::new()
            .checksum_flag(checksums)
            .frame_size_policy(zeekstd::FrameSizePolicy::Uncompressed(frame));
        let mut encoder = options.into_encoder(&mut image).unwrap();
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
        let source = open(&image).unwrap();
        assert!(contents(&source) == bytes, "{frame}");
        assert!(source.capabilities().preferred_read.0 >= 1);
    }
}

#[test]
fn other_readers_read_our_images() {
    let bytes = text(300_001, 2);
    let image = packed(&bytes, 7);
    let mut got = Vec::new();
    let mut decoder = zeekstd::Decoder::new(std::io::Cursor::new(image.clone())).unwrap();
    decoder.read_to_end(&mut got).unwrap();
    assert!(got == bytes);
    assert!(zstd::decode_all(&image[..]).unwrap() == bytes, "a reader that knows nothing of seek tables");
}

#[test]
fn no_damage_of_one_byte_is_read_as_something_else() {
    let bytes = text(3 * PAGE + 100, 3);
    let image = packed(&bytes, 2);
    let mut refused = 0;
    for at in 0..image.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = image.clone();
            damaged[at] ^= flip;
            let error = match open(&damaged).and_then(|source| read(&source, 0, 4)) {
                Ok(got) => {
                    assert!(got[..bytes.len()] == bytes[..], "{at} {flip:#x}");
                    continue;
                }
                Err(error) => error,
            };
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{at} {flip:#x}: {error:?}");
            if error.operation() == Operation::Read {
                assert_eq!(error.status(), Status::IoDataIntegrity);
            }
            refused += 1;
        }
    }
    assert!(refused > image.len() * 2, "{refused} of {}", image.len() * 3);
}

#[test]
fn an_image_that_is_cut_is_refused() {
    let image = packed(&text(2 * PAGE, 4), 1);
    for len in 0..image.len() {
        let error = open(&image[..len]).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Unsupported, Operation::Open), "{len}");
    }
    for cut in 1..image.len() - 50 {
        assert_eq!(open(&image[cut..]).unwrap_err().kind(), ErrorKind::Corrupt, "{cut}");
    }
}

#[test]
fn damage_beneath_is_found_and_the_rest_is_read() {
    let bytes = text(20 * PAGE, 5);
    let beneath = Injector::new(Memory::new(packed(&bytes, 4)), 9);
    let source = block_on(SeekableZstd::open(beneath)).unwrap();
    // Whole pages are read beneath, so the bit may lie outside the frame, and then nothing is wrong.
    for _ in 0..20 {
        source.get_ref().add(Rule { times: Some(1), ..Rule::always(Fault::Flip) });
        match read(&source, 4, 4) {
            Ok(got) => assert!(got[..] == bytes[4 * PAGE..8 * PAGE]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
    assert!(contents(&source) == bytes);
}

#[test]
fn an_error_beneath_is_the_error() {
    let beneath = Injector::new(Memory::new(packed(&text(PAGE, 6), 1)), 1);
    beneath.script([None, None, Some(Fault::Error(ErrorKind::Unavailable))]);
    let source = block_on(SeekableZstd::open(beneath)).unwrap();
    assert!(read(&source, 0, 1).unwrap_err().is_transient());
}

#[test]
fn a_read_reads_only_its_frames_beneath() {
    let bytes = pattern(64 * PAGE, 7);
    let source = block_on(SeekableZstd::open(Injector::new(Memory::new(packed(&bytes, 4)), 1))).unwrap();
    let calls = source.get_ref().calls();
    // The frames before and after, a few pages away, cannot be read, and need not be.
    let half = (source.get_ref().len() / 2) & !4095;
    source
        .get_ref()
        .add(Rule { range: Some(upager::ByteRange::new(half, u64::MAX)), ..Rule::always(Fault::Error(ErrorKind::Io)) });
    assert!(read(&source, 0, 24).unwrap()[..] == bytes[..24 * PAGE]);
    assert_eq!(source.get_ref().calls(), calls + 1, "as one range");
    assert!(read(&source, 40, 4).is_err());
}

#[test]
fn an_empty_image_is_an_image() {
    let source = open(&packed(&[], 1)).unwrap();
    assert!(source.is_empty() && read(&source, 0, 1).unwrap().iter().all(|byte| *byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rubbish_is_refused_without_panic(mut image in proptest::collection::vec(any::<u8>(), 0..400), tail in any::<bool>()) {
        if tail {
            image.extend(0x8F92_EAB1_u32.to_le_bytes());
        }
        if let Ok(source) = open(&image) {
            let _ = read(&source, 0, 1);
        }
    }
}
