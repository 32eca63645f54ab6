//! The pager's calls.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use upager::{
    ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, Pager, PagerOp, Result, Status, VmoOptions, VmoStatsOptions,
};

use crate::boundary::{Out, boundary, items_mut};
use crate::object::{Handles, Host, Kind, Memory, NewHandle, PLATFORM};
use crate::types::{
    ZX_DEFAULT_PAGER_RIGHTS, ZX_DEFAULT_VMO_RIGHTS, ZX_RIGHT_READ, ZX_RIGHT_RESIZE, ZX_RIGHT_WRITE, ZX_VMO_RESIZABLE,
    zx_handle_t, zx_pager_vmo_stats_t, zx_status_t, zx_vmo_dirty_range_t,
};

/// `zx_pager_create()`.
///
/// # Safety
/// `out` is null or misaligned, or a handle can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_pager_create(options: u32, out: *mut zx_handle_t) -> zx_status_t {
    boundary("zx_pager_create", || {
        if options != 0 {
            return Err(Status::InvalidArgs);
        }
        let out = Out::new(out)?;
        let handle = NewHandle::reserve()?;
        out.set(handle.fill(Kind::Pager(Pager::new(PLATFORM.clone())), ZX_DEFAULT_PAGER_RIGHTS));
        Ok(())
    })
}

/// `zx_pager_create_vmo()`. The handle has `ZX_RIGHT_RESIZE` if the VMO is resizable.
///
/// # Safety
/// As for [`zx_pager_create`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_pager_create_vmo(
    pager: zx_handle_t,
    options: u32,
    port: zx_handle_t,
    key: u64,
    size: u64,
    out: *mut zx_handle_t,
) -> zx_status_t {
    boundary("zx_pager_create_vmo", || {
        let handles = Handles::new([pager, port]);
        let pager = handles.pager(0)?;
        let port = handles.port(1, ZX_RIGHT_WRITE)?;
        let resizable = options & ZX_VMO_RESIZABLE != 0;
        let options = VmoOptions::from_bits(options)?;
        let out = Out::new(out)?;
        let handle = NewHandle::reserve()?;
        let vmo = Arc::new(pager.create_vmo(port, key, options, size)?);
        let rights = ZX_DEFAULT_VMO_RIGHTS | if resizable { ZX_RIGHT_RESIZE } else { 0 };
        out.set(handle.fill(Kind::Vmo(Memory::Paged { vmo, resizable }), rights));
        Ok(())
    })
}

/// `zx_pager_detach_vmo()`.
#[unsafe(no_mangle)]
pub extern "C" fn zx_pager_detach_vmo(pager: zx_handle_t, vmo: zx_handle_t) -> zx_status_t {
    boundary("zx_pager_detach_vmo", || {
        let handles = Handles::new([pager, vmo]);
        let pager = handles.pager(0)?;
        pager.detach_vmo(handles.pagers_vmo(1)?.get()?).map(drop)
    })
}

/// `zx_pager_supply_pages()`. An aux VMO that is a pager's: BAD_STATE.
#[unsafe(no_mangle)]
pub extern "C" fn zx_pager_supply_pages(
    pager: zx_handle_t,
    pager_vmo: zx_handle_t,
    offset: u64,
    length: u64,
    aux_vmo: zx_handle_t,
    aux_offset: u64,
) -> zx_status_t {
    boundary("zx_pager_supply_pages", || {
        let handles = Handles::new([pager, pager_vmo, aux_vmo]);
        let pager = handles.pager(0)?;
        let vmo = handles.pagers_vmo(1)?;
        let aux = handles.vmo(2, ZX_RIGHT_READ | ZX_RIGHT_WRITE)?;
        let (vmo, range) = (vmo.get()?, ByteRange::new(offset, length));
        match aux {
            Memory::Anonymous(aux) => pager.supply_pages(vmo, range, aux, ByteOffset(aux_offset)),
            Memory::Paged { vmo: aux, .. } => {
                check_supply(pager, vmo, range, aux.size(), aux_offset)?;
                Err(Status::BadState)
            }
        }
    })
}

/// What is wrong with a supply whatever the aux VMO is.
fn check_supply(pager: &Pager<Host>, vmo: &upager::Vmo<Host>, range: ByteRange, aux_size: u64, at: u64) -> Result<()> {
    pager.query_dirty_ranges(vmo, ByteRange::new(0, 0), &mut [])?; // is it this pager's?
    if [range.offset, range.length, at].iter().any(|number| !number.is_multiple_of(PAGE_SIZE)) {
        return Err(Status::InvalidArgs);
    }
    let lies_in = |offset: u64, size| offset.checked_add(range.length).is_some_and(|end| end <= size);
    if lies_in(range.offset, vmo.size()) && lies_in(at, aux_size) { Ok(()) } else { Err(Status::OutOfRange) }
}

/// `zx_pager_op_range()`.
#[unsafe(no_mangle)]
pub extern "C" fn zx_pager_op_range(
    pager: zx_handle_t,
    op: u32,
    pager_vmo: zx_handle_t,
    offset: u64,
    length: u64,
    data: u64,
) -> zx_status_t {
    boundary("zx_pager_op_range", || {
        let handles = Handles::new([pager, pager_vmo]);
        let pager = handles.pager(0)?;
        let vmo = handles.pagers_vmo(1)?;
        let op = PagerOp::from_raw(op, data)?;
        pager.op_range(vmo.get()?, op, ByteRange::new(offset, length))
    })
}

/// `zx_pager_query_dirty_ranges()`. The buffer is of `zx_vmo_dirty_range_t`; what of it is no whole one is left alone. With a
/// size of 0 it may be null.
///
/// # Safety
/// `buffer` is null or misaligned, or `buffer_size` bytes can be written there; `actual` and `avail` are null or
/// misaligned, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_pager_query_dirty_ranges(
    pager: zx_handle_t,
    pager_vmo: zx_handle_t,
    offset: u64,
    length: u64,
    buffer: *mut c_void,
    buffer_size: usize,
    actual: *mut usize,
    avail: *mut usize,
) -> zx_status_t {
    boundary("zx_pager_query_dirty_ranges", || {
        let handles = Handles::new([pager, pager_vmo]);
        let pager = handles.pager(0)?;
        let vmo = handles.pagers_vmo(1)?;
        let at = if buffer_size == 0 { ptr::dangling_mut() } else { buffer.cast::<zx_vmo_dirty_range_t>() };
        // SAFETY: by the contract of this function.
        let buffer: &mut [DirtyRange] = unsafe { items_mut(at, buffer_size / size_of::<zx_vmo_dirty_range_t>()) }?;
        let (actual, avail) = (Out::optional(actual)?, Out::optional(avail)?);
        let found = pager.query_dirty_ranges(vmo.get()?, ByteRange::new(offset, length), buffer)?;
        if let Some(actual) = actual {
            actual.set(found.actual);
        }
        if let Some(avail) = avail {
            avail.set(found.available);
        }
        Ok(())
    })
}

/// `zx_pager_query_vmo_stats()`.
///
/// # Safety
/// `buffer` is null or misaligned, or `buffer_size` bytes can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_pager_query_vmo_stats(
    pager: zx_handle_t,
    pager_vmo: zx_handle_t,
    options: u32,
    buffer: *mut c_void,
    buffer_size: usize,
) -> zx_status_t {
    boundary("zx_pager_query_vmo_stats", || {
        let handles = Handles::new([pager, pager_vmo]);
        let pager = handles.pager(0)?;
        let vmo = handles.pagers_vmo(1)?;
        let options = VmoStatsOptions::from_bits(options)?;
        let buffer = Out::new(buffer.cast::<zx_pager_vmo_stats_t>())?;
        let vmo = vmo.get()?;
        if buffer_size < size_of::<zx_pager_vmo_stats_t>() {
            pager.query_vmo_stats(vmo, VmoStatsOptions::Keep)?; // whose it is comes first
            return Err(Status::BufferTooSmall);
        }
        buffer.set(pager.query_vmo_stats(vmo, options)?);
        Ok(())
    })
}
