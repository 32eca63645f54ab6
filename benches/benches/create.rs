//! Making a VMO, and its end: `create/1_mib`, `create/1_gib`, `create/1_tib`, and `create/used` of 1
//! GiB with 64 dirty pages in it.
//!
//! Its COMPLETE is taken, so that its port forgets it. The floor is `flat`: one allocation of zeroed
//! words, one for each page, where there is memory for that. `dashmap` is made with no room.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use upager::{Access, OwnedFrame, PAGE_SIZE, Packet, PageIndex, Pager, Port, VmoOptions};
use upager::{ByteRange, Command};
use upager_benches::{Numbers, Path, config, timed};

/// VMOs in a round.
const VMOS: u64 = 16;

type Ends = (Arc<Numbers>, Pager<Numbers>, Port<Numbers>);

fn ends() -> Ends {
    let platform = Arc::new(Numbers::default());
    (platform.clone(), Pager::new(platform.clone()), Port::new(platform))
}

fn create((_, pager, port): &Ends, size: u64) {
    let vmo = pager.create_vmo(port, 1, VmoOptions::NONE, std::hint::black_box(size)).expect("memory for a VMO");
    drop(vmo);
    let mut packets = [Packet::default()];
    assert_eq!(port.take(&mut packets), 1);
    assert_eq!(packets[0].command(), Some(Command::Complete));
}

/// A VMO that has been used: 64 pages at its beginning are dirty.
fn create_used((platform, pager, port): &Ends) {
    let vmo = pager.create_vmo(port, 1, VmoOptions::NONE, 1 << 30).expect("memory for a VMO");
    let frames: [_; 64] = std::array::from_fn(|_| OwnedFrame::new(&**platform).expect("frames are numbers"));
    assert_eq!(pager.supply_frames(&vmo, ByteRange::new(0, 64 * PAGE_SIZE), frames), Ok(()));
    for page in 0..64 {
        let mut fault = vmo.fault(PageIndex(page), Access::Write);
        assert!(Future::poll(Pin::new(&mut fault), &mut Context::from_waker(Waker::noop())).is_ready());
    }
    drop(vmo);
    assert_eq!(port.take(&mut [Packet::default()]), 1);
}

fn creation(criterion: &mut Criterion) {
    for (name, size) in [("1_mib", 1 << 20), ("1_gib", 1 << 30), ("1_tib", 1 << 40)] {
        let mut path = Path::new(criterion, &format!("create/{name}"), VMOS);
        path.measure("upager", ends, |ends| timed(|| (0..VMOS).for_each(|_| create(ends, size))).1);
        if size <= 1 << 30 {
            path.measure(
                "flat",
                || (),
                |()| {
                    let layout =
                        Layout::array::<u64>(usize::try_from(size / PAGE_SIZE).expect("pages")).expect("a size");
                    // SAFETY: the layout is not empty, and what it allocates is freed with it.
                    let make = |_| unsafe { dealloc(std::hint::black_box(alloc_zeroed(layout)), layout) };
                    timed(|| (0..VMOS).for_each(make)).1
                },
            );
        }
        path.measure(
            "dashmap",
            || (),
            |()| {
                let make = |_| drop(std::hint::black_box(DashMap::<u64, u64, FixedState>::default()));
                timed(|| (0..VMOS).for_each(make)).1
            },
        );
    }
    let mut path = Path::new(criterion, "create/used", VMOS);
    path.measure("upager", ends, |ends| timed(|| (0..VMOS).for_each(|_| create_used(ends))).1);
}

criterion_group! {
    name = creations;
    config = config();
    targets = creation
}
criterion_main!(creations);
