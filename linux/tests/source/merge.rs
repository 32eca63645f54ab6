//! Merged ranges: what they cover, and that they are few.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use upager::{ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount};
use upager_linux::source::merge_ranges;

fn pages(range: ByteRange) -> std::ops::Range<u64> {
    range.offset / PAGE_SIZE..(range.offset + range.length).div_ceil(PAGE_SIZE)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn they_cover_what_they_were_made_of_and_only_gaps_besides(
        ranges in vec((0..300_000u64, 0..30_000u64), 0..20),
        gap in 0..4u64,
        most in 1..20u64,
    ) {
        let ranges: Vec<_> = ranges.into_iter().map(|(offset, length)| ByteRange::new(offset, length)).collect();
        let merged = merge_ranges(ranges.clone(), PageCount(gap), PageCount(most));
        let wanted: BTreeSet<u64> = ranges.iter().filter(|range| range.length > 0).flat_map(|range| pages(*range)).collect();
        let covered: Vec<u64> = merged.iter().flat_map(|range| pages(*range)).collect();
        prop_assert!(covered.is_sorted_by(|a, b| a < b), "disjoint and in order");
        prop_assert!(wanted.iter().all(|page| covered.binary_search(page).is_ok()));
        for page in covered.iter().filter(|page| !wanted.contains(page)) {
            let before = wanted.range(..page).next_back().expect("a gap has something before it");
            let after = wanted.range(page..).next().expect("and after it");
            prop_assert!(after - before - 1 <= gap);
        }
        for range in &merged {
            prop_assert!(range.offset.is_multiple_of(PAGE_SIZE) && range.length.is_multiple_of(PAGE_SIZE));
            prop_assert!(range.length > 0 && range.length <= most * PAGE_SIZE);
        }
        for pair in merged.windows(2) {
            let apart = (pair[1].offset - pair[0].offset - pair[0].length) / PAGE_SIZE;
            // Neighbours that were not joined are too far apart, or cut where it pleases the source.
            prop_assert!(apart > gap || (apart == 0 && pair[1].offset.is_multiple_of(most * PAGE_SIZE)));
        }
    }
}

#[test]
fn the_largest_ranges_do_not_overflow() {
    let most = PageCount(u64::MAX);
    let all = [ByteRange::new(0, u64::MAX), ByteRange::new(u64::MAX, u64::MAX), ByteRange::new(u64::MAX, 0)];
    assert_eq!(merge_ranges(all, PageCount(u64::MAX), most), [ByteRange::new(0, MAX_VMO_SIZE)]);
    assert_eq!(merge_ranges([], PageCount(0), PageCount(0)), []);
}
