//! Access to VMOs, a pager's and others. A call that needs pages blocks its thread until the service has answered.

use std::ffi::c_void;

use upager::{AnonymousVmo, ByteOffset, ByteRange, MAX_VMO_SIZE, PAGE_SIZE, Result, Status, VmoOp, block_on};

use crate::boundary::{Out, boundary, items, items_mut};
use crate::object::{Handles, Host, Kind, Memory, NewHandle, PLATFORM, has};
use crate::types::{
    ZX_DEFAULT_VMO_RIGHTS, ZX_RIGHT_DUPLICATE, ZX_RIGHT_READ, ZX_RIGHT_RESIZE, ZX_RIGHT_WRITE, ZX_VMO_CHILD_NO_WRITE,
    ZX_VMO_CHILD_REFERENCE, ZX_VMO_CHILD_RESIZABLE, ZX_VMO_CHILD_SLICE, ZX_VMO_CHILD_SNAPSHOT,
    ZX_VMO_CHILD_SNAPSHOT_AT_LEAST_ON_WRITE, ZX_VMO_CHILD_SNAPSHOT_MODIFIED, ZX_VMO_DISCARDABLE, ZX_VMO_RESIZABLE,
    ZX_VMO_UNBOUNDED, zx_handle_t, zx_status_t,
};

/// Zircon's options for a VMO without a pager, which none has here.
const ANONYMOUS_OPTIONS: u32 = ZX_VMO_RESIZABLE | ZX_VMO_DISCARDABLE | ZX_VMO_UNBOUNDED;
const CHILD_OPTIONS: u32 = ZX_VMO_CHILD_SNAPSHOT
    | ZX_VMO_CHILD_RESIZABLE
    | ZX_VMO_CHILD_SLICE
    | ZX_VMO_CHILD_SNAPSHOT_AT_LEAST_ON_WRITE
    | ZX_VMO_CHILD_NO_WRITE
    | ZX_VMO_CHILD_REFERENCE
    | ZX_VMO_CHILD_SNAPSHOT_MODIFIED;

/// No option is to be had: NOT_SUPPORTED for those of Zircon's, INVALID_ARGS for what is none of them.
const fn refuse(options: u32, known: u32) -> Status {
    if options & !known == 0 { Status::NotSupported } else { Status::InvalidArgs }
}

/// `zx_vmo_create()`: zeros, of a fixed size, never discarded. Options: `ZX_VMO_RESIZABLE`, `_DISCARDABLE` and `_UNBOUNDED`
/// are NOT_SUPPORTED here, any other is INVALID_ARGS (`ZX_VMO_TRAP_DIRTY` too: there is no pager to ask).
///
/// # Safety
/// `out` is null or misaligned, or a handle can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_create(size: u64, options: u32, out: *mut zx_handle_t) -> zx_status_t {
    boundary("zx_vmo_create", || {
        let out = Out::new(out)?;
        if options != 0 {
            return Err(refuse(options, ANONYMOUS_OPTIONS));
        }
        let handle = NewHandle::reserve()?;
        let vmo = AnonymousVmo::new(PLATFORM.clone(), size)?;
        out.set(handle.fill(Kind::Vmo(Memory::Anonymous(vmo)), ZX_DEFAULT_VMO_RIGHTS));
        Ok(())
    })
}

/// No VMO is as large.
fn check_length(length: usize) -> Result<()> {
    if length as u64 > MAX_VMO_SIZE { Err(Status::OutOfRange) } else { Ok(()) }
}

/// `zx_vmo_read()`.
///
/// # Safety
/// `buffer` is null, or `buffer_size` bytes can be written there, and nobody else uses them during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_read(
    handle: zx_handle_t,
    buffer: *mut c_void,
    offset: u64,
    buffer_size: usize,
) -> zx_status_t {
    boundary("zx_vmo_read", || {
        let handles = Handles::new([handle]);
        let memory = handles.vmo(0, ZX_RIGHT_READ)?;
        if buffer.is_null() {
            return Err(Status::InvalidArgs);
        }
        check_length(buffer_size)?;
        // SAFETY: by the contract of this function.
        let to = unsafe { items_mut(buffer.cast::<u8>(), buffer_size) }?;
        match memory {
            Memory::Paged { vmo, .. } => block_on(vmo.read(ByteOffset(offset), to)),
            Memory::Anonymous(vmo) => vmo.read(ByteOffset(offset), to),
        }
    })
}

/// `zx_vmo_write()`. A call that fails may have written a prefix.
///
/// # Safety
/// `buffer` is null, or `buffer_size` bytes can be read there, and nobody writes to them during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_write(
    handle: zx_handle_t,
    buffer: *const c_void,
    offset: u64,
    buffer_size: usize,
) -> zx_status_t {
    boundary("zx_vmo_write", || {
        let handles = Handles::new([handle]);
        let memory = handles.vmo(0, ZX_RIGHT_WRITE)?;
        if buffer.is_null() {
            return Err(Status::InvalidArgs);
        }
        check_length(buffer_size)?;
        // SAFETY: by the contract of this function.
        let from = unsafe { items(buffer.cast::<u8>(), buffer_size) }?;
        match memory {
            Memory::Paged { vmo, .. } => block_on(vmo.write(ByteOffset(offset), from)),
            Memory::Anonymous(vmo) => vmo.write(ByteOffset(offset), from),
        }
    })
}

/// `zx_vmo_get_size()`.
///
/// # Safety
/// `size` is null or misaligned, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_get_size(handle: zx_handle_t, size: *mut u64) -> zx_status_t {
    boundary("zx_vmo_get_size", || {
        let handles = Handles::new([handle]);
        let memory = handles.vmo(0, 0)?;
        Out::new(size)?.set(match memory {
            Memory::Paged { vmo, .. } => vmo.size(),
            Memory::Anonymous(vmo) => vmo.size(),
        });
        Ok(())
    })
}

/// `zx_vmo_set_size()`. Of a VMO that is not resizable, UNAVAILABLE comes before the look at `ZX_RIGHT_RESIZE`, as in Zircon.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmo_set_size(handle: zx_handle_t, size: u64) -> zx_status_t {
    boundary("zx_vmo_set_size", || {
        let handles = Handles::new([handle]);
        let memory = handles.vmo(0, ZX_RIGHT_WRITE)?;
        let Memory::Paged { vmo, resizable: true } = memory else { return Err(Status::Unavailable) };
        has(handles.object(0)?.1, ZX_RIGHT_RESIZE)?;
        vmo.set_size(size)
    })
}

fn op_anonymous(vmo: &AnonymousVmo<Host>, op: VmoOp, range: ByteRange) -> Result<()> {
    match op {
        VmoOp::Commit => vmo.commit(range),
        VmoOp::Decommit => vmo.decommit(range),
        VmoOp::Zero => vmo.zero(range),
        // Nothing stands behind its pages: there is nothing to bring in, and nothing is evicted.
        VmoOp::DontNeed | VmoOp::AlwaysNeed | VmoOp::Prefetch => {
            let end = range.offset.checked_add(range.length).filter(|&end| end <= vmo.size());
            end.map(drop).ok_or(Status::OutOfRange)
        }
    }
}

/// `zx_vmo_op_range()`. COMMIT, DECOMMIT and ZERO need `ZX_RIGHT_WRITE`, the hints `ZX_RIGHT_READ`. No operation uses the buffer.
///
/// # Safety
/// None is needed: the buffer is not touched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_op_range(
    handle: zx_handle_t,
    op: u32,
    offset: u64,
    size: u64,
    _buffer: *mut c_void,
    _buffer_size: usize,
) -> zx_status_t {
    boundary("zx_vmo_op_range", || {
        let handles = Handles::new([handle]);
        let memory = handles.vmo(0, 0)?;
        let op = VmoOp::from_raw(op)?;
        let needed = match op {
            VmoOp::Commit | VmoOp::Decommit | VmoOp::Zero => ZX_RIGHT_WRITE,
            VmoOp::DontNeed | VmoOp::AlwaysNeed | VmoOp::Prefetch => ZX_RIGHT_READ,
        };
        has(handles.object(0)?.1, needed)?;
        let range = ByteRange::new(offset, size);
        match memory {
            Memory::Paged { vmo, .. } => block_on(vmo.op_range(op, range)),
            Memory::Anonymous(vmo) => op_anonymous(vmo, op, range),
        }
    })
}

/// `zx_vmo_create_child()`. There are no children here: NOT_SUPPORTED, when all that can be checked is right.
///
/// # Safety
/// None is needed: `out` is not written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmo_create_child(
    handle: zx_handle_t,
    options: u32,
    offset: u64,
    _size: u64,
    out: *mut zx_handle_t,
) -> zx_status_t {
    boundary("zx_vmo_create_child", || {
        let handles = Handles::new([handle]);
        handles.vmo(0, ZX_RIGHT_DUPLICATE | ZX_RIGHT_READ)?;
        Out::new(out)?;
        if options == 0 || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs);
        }
        Err(refuse(options, CHILD_OPTIONS))
    })
}

/// The size of the page, also for who asks the system (`zx_system_get_page_size()`).
#[unsafe(no_mangle)]
pub extern "C" fn zx_system_get_page_size() -> u32 {
    PAGE_SIZE as u32
}
