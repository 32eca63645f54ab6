//! Few long ranges out of many short ones.

use upager::{ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount};

/// Makes as few ranges of these as can be: sorted, disjoint, each of whole pages and at most `most` long. What lies between two that
/// are at most `gap` apart is taken along: reading it is cheaper than asking twice. (Do not use a gap for writes.)
///
/// A range that would be longer than `most` is cut at multiples of it, so that the pieces fit a source
/// whose [`preferred_read`](super::Capabilities::preferred_read) it is. Empty ranges count for nothing, nor does
/// what lies past [`MAX_VMO_SIZE`]. O(n log n).
///
/// ```
/// use upager::{ByteRange, PageCount};
/// use upager_linux::source::merge_ranges;
/// let faults = [ByteRange::new(8192, 4096), ByteRange::new(0, 4096), ByteRange::new(65536, 4096)];
/// let reads = merge_ranges(faults, PageCount(1), PageCount(256));
/// assert_eq!(reads, [ByteRange::new(0, 12288), ByteRange::new(65536, 4096)]);
/// ```
#[must_use]
pub fn merge_ranges(ranges: impl IntoIterator<Item = ByteRange>, gap: PageCount, most: PageCount) -> Vec<ByteRange> {
    let mut runs: Vec<(u64, u64)> = ranges
        .into_iter()
        .filter(|range| range.length > 0)
        .map(|range| (range.offset, range.offset.saturating_add(range.length).min(MAX_VMO_SIZE)))
        .map(|(start, end)| (start / PAGE_SIZE, end.div_ceil(PAGE_SIZE)))
        .collect();
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let joins = next.0 <= run.1.saturating_add(gap.0);
        if joins {
            run.1 = run.1.max(next.1);
        }
        joins
    });
    let most = most.0.max(1);
    let mut pieces = Vec::with_capacity(runs.len());
    for (mut start, end) in runs {
        while start < end {
            let cut = if end - start <= most { end } else { start - start % most + most };
            pieces.push(ByteRange::new(start * PAGE_SIZE, (cut - start) * PAGE_SIZE));
            start = cut;
        }
    }
    pieces
}
