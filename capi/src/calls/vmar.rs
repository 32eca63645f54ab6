//! Mappings: the address space of the process, as one VMAR.
//!
//! A mapped access that fails raises SIGBUS, on Linux what a process that Zircon would end with an exception gets.
//!
//! What there is: mappings of pagers' VMOs, readable or readable and writable, at addresses of the system's choice, taken away and
//! protected as a whole. What there is not, is NOT_SUPPORTED: VMOs without a pager, addresses that the caller chooses, code,
//! mappings past the end of their VMO, parts of mappings, VMARs besides the root.

use std::ops::Range;
use std::sync::Arc;

use upager::{ByteRange, PAGE_SIZE, Result, Status, VmoOp, block_on};
use upager_linux::Protection;

use crate::boundary::{Out, boundary};
use crate::mappings::{self, Mapped, mapper, status_of};
use crate::object::{Handles, Memory, root_vmar};
use crate::types::{
    ZX_RIGHT_MAP, ZX_RIGHT_READ, ZX_RIGHT_WRITE, ZX_VM_ALLOW_FAULTS, ZX_VM_CAN_MAP_EXECUTE, ZX_VM_CAN_MAP_READ,
    ZX_VM_CAN_MAP_SPECIFIC, ZX_VM_CAN_MAP_WRITE, ZX_VM_COMPACT, ZX_VM_MAP_RANGE, ZX_VM_OFFSET_IS_UPPER_LIMIT,
    ZX_VM_PERM_EXECUTE, ZX_VM_PERM_READ, ZX_VM_PERM_READ_IF_XOM_UNSUPPORTED, ZX_VM_PERM_WRITE,
    ZX_VM_REQUIRE_NON_RESIZABLE, ZX_VM_SPECIFIC, ZX_VM_SPECIFIC_OVERWRITE, ZX_VMAR_OP_MAP_RANGE, zx_handle_t,
    zx_rights_t, zx_status_t, zx_vaddr_t, zx_vm_option_t,
};

/// What makes a mapping that there is here. The hint to bring pages in at once is taken and not followed, and
/// any mapping may fault.
const KNOWN: zx_vm_option_t =
    ZX_VM_PERM_READ | ZX_VM_PERM_WRITE | ZX_VM_MAP_RANGE | ZX_VM_REQUIRE_NON_RESIZABLE | ZX_VM_ALLOW_FAULTS;
/// What Zircon has besides. The highest bits ask for an alignment.
const ZIRCONS: zx_vm_option_t = ZX_VM_PERM_EXECUTE
    | ZX_VM_SPECIFIC
    | ZX_VM_SPECIFIC_OVERWRITE
    | ZX_VM_OFFSET_IS_UPPER_LIMIT
    | ZX_VM_PERM_READ_IF_XOM_UNSUPPORTED
    | 0x1f << 24;

/// What may be done to a mapping, by its options.
fn protection(options: zx_vm_option_t, known: zx_vm_option_t) -> Result<Protection> {
    if options & !(known | ZIRCONS) != 0 {
        return Err(Status::InvalidArgs);
    }
    if options & ZIRCONS != 0 {
        return Err(Status::NotSupported);
    }
    match options & (ZX_VM_PERM_READ | ZX_VM_PERM_WRITE) {
        0 => Err(Status::NotSupported),
        ZX_VM_PERM_READ => Ok(Protection::ReadOnly),
        ZX_VM_PERM_WRITE => Err(Status::InvalidArgs), // Zircon's too
        _ => Ok(Protection::ReadWrite),
    }
}

/// The rights that options ask for, of the VMAR and of the VMO.
const fn rights(options: zx_vm_option_t) -> zx_rights_t {
    let read = if options & ZX_VM_PERM_READ != 0 { ZX_RIGHT_READ } else { 0 };
    read | if options & ZX_VM_PERM_WRITE != 0 { ZX_RIGHT_WRITE } else { 0 }
}

/// Whole pages of addresses, at least one.
fn pages(at: zx_vaddr_t, len: u64) -> Result<Range<usize>> {
    if len == 0 || !len.is_multiple_of(PAGE_SIZE) || !(at as u64).is_multiple_of(PAGE_SIZE) {
        return Err(Status::InvalidArgs);
    }
    let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len));
    Ok(at..end.ok_or(Status::InvalidArgs)?)
}

/// `zx_vmar_root_self()`: the address space of the process. The same handle each time.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_root_self() -> zx_handle_t {
    root_vmar()
}

/// `zx_vmar_map()`: at an address of the system's choice, so `vmar_offset` must be 0. `ZX_VM_MAP_RANGE` and `ZX_VM_ALLOW_FAULTS` are taken
/// and change nothing. The mapping keeps the VMO when its handles are closed.
///
/// NOT_SUPPORTED: see the module; or the system has no userfaultfd for the process. BUFFER_TOO_SMALL: the
/// VMO is smaller, and `ZX_VM_ALLOW_FAULTS` was not given.
///
/// # Safety
/// `mapped_addr` is null or misaligned, or an address can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmar_map(
    handle: zx_handle_t,
    options: zx_vm_option_t,
    vmar_offset: u64,
    vmo: zx_handle_t,
    vmo_offset: u64,
    len: u64,
    mapped_addr: *mut zx_vaddr_t,
) -> zx_status_t {
    boundary("zx_vmar_map", || {
        let handles = Handles::new([handle, vmo]);
        handles.vmar(0, rights(options))?;
        let memory = handles.vmo(1, ZX_RIGHT_MAP | rights(options))?;
        let out = Out::new(mapped_addr)?;
        let protection = protection(options, KNOWN)?;
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Status::OutOfRange)?;
        if vmar_offset != 0 || len == 0 || !vmo_offset.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs);
        }
        let end = vmo_offset.checked_add(len).ok_or(Status::OutOfRange)?;
        let Memory::Paged { vmo, resizable } = memory else { return Err(Status::NotSupported) };
        if *resizable && options & ZX_VM_REQUIRE_NON_RESIZABLE != 0 {
            return Err(Status::NotSupported);
        }
        if end > vmo.size() {
            let beyond = options & ZX_VM_ALLOW_FAULTS != 0;
            return Err(if beyond { Status::NotSupported } else { Status::BufferTooSmall });
        }
        let mapping =
            mapper()?.map(vmo, ByteRange::new(vmo_offset, len), protection).map_err(|error| status_of(&error))?;
        let may_write = handles.object(1)?.1 & ZX_RIGHT_WRITE != 0;
        out.set(mappings::add(Mapped { mapping, may_write }));
        Ok(())
    })
}

/// `zx_vmar_unmap()`: every mapping in the range. Threads that are stopped in one get SIGBUS.
///
/// NOT_FOUND: there is none. NOT_SUPPORTED: one lies in it only in part, and nothing has changed.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_unmap(handle: zx_handle_t, addr: zx_vaddr_t, len: u64) -> zx_status_t {
    boundary("zx_vmar_unmap", || {
        Handles::new([handle]).vmar(0, 0)?;
        mappings::remove(&pages(addr, len)?)
    })
}

/// `zx_vmar_protect()`: whole mappings.
///
/// NOT_FOUND: an address has none. ACCESS_DENIED: one was mapped with a handle that could not write.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_protect(
    handle: zx_handle_t,
    options: zx_vm_option_t,
    addr: zx_vaddr_t,
    len: u64,
) -> zx_status_t {
    boundary("zx_vmar_protect", || {
        Handles::new([handle]).vmar(0, rights(options))?;
        let protection = protection(options, ZX_VM_PERM_READ | ZX_VM_PERM_WRITE)?;
        let found = mappings::whole(&pages(addr, len)?)?;
        if protection == Protection::ReadWrite && !found.iter().all(|mapped| mapped.may_write) {
            return Err(Status::AccessDenied);
        }
        for mapped in &found {
            mapped.mapping.protect(protection).map_err(|error| status_of(&error))?;
        }
        Ok(())
    })
}

/// `zx_vmar_op_range()`: as `zx_vmo_op_range()`, by address. `ZX_VMAR_OP_MAP_RANGE` is taken and changes nothing, since who touches a
/// page gets it. No operation uses the buffer.
///
/// BAD_STATE: an address is not mapped. ACCESS_DENIED: COMMIT, DECOMMIT or ZERO of what was mapped with a handle that
/// could not write.
///
/// # Safety
/// None is needed: the buffer is not touched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmar_op_range(
    handle: zx_handle_t,
    op: u32,
    address: zx_vaddr_t,
    size: u64,
    _buffer: *mut core::ffi::c_void,
    _buffer_size: usize,
) -> zx_status_t {
    boundary("zx_vmar_op_range", || {
        let handles = Handles::new([handle]);
        handles.vmar(0, 0)?;
        let op = if op == ZX_VMAR_OP_MAP_RANGE { None } else { Some(VmoOp::from_raw(op)?) };
        let range = pages(address, size)?;
        let found = mappings::covering(&range).map_err(|_| Status::BadState)?;
        let Some(op) = op else { return Ok(()) };
        let writes = matches!(op, VmoOp::Commit | VmoOp::Decommit | VmoOp::Zero);
        if writes && !found.iter().all(|mapped| mapped.may_write) {
            return Err(Status::AccessDenied);
        }
        for mapped in &found {
            let addresses = mapped.mapping.addresses();
            let (start, end) = (range.start.max(addresses.start), range.end.min(addresses.end));
            let offset = mapped.mapping.range().offset + (start - addresses.start) as u64;
            let vmo = Arc::clone(mapped.mapping.vmo());
            block_on(vmo.op_range(op, ByteRange::new(offset, (end - start) as u64)))?;
        }
        Ok(())
    })
}

/// `zx_vmar_allocate()`. There is the root only: NOT_SUPPORTED, when all that can be checked is right.
///
/// # Safety
/// None is needed: nothing is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmar_allocate(
    parent_vmar: zx_handle_t,
    options: zx_vm_option_t,
    _offset: u64,
    size: u64,
    child_vmar: *mut zx_handle_t,
    child_addr: *mut zx_vaddr_t,
) -> zx_status_t {
    boundary("zx_vmar_allocate", || {
        Handles::new([parent_vmar]).vmar(0, 0)?;
        Out::new(child_vmar)?;
        Out::new(child_addr)?;
        let permissions = ZX_VM_PERM_READ | ZX_VM_PERM_WRITE | ZX_VM_PERM_EXECUTE;
        let children =
            ZX_VM_COMPACT | ZX_VM_CAN_MAP_SPECIFIC | ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE | ZX_VM_CAN_MAP_EXECUTE;
        if size == 0 || options & permissions != 0 || options & !(KNOWN | ZIRCONS | children) != 0 {
            return Err(Status::InvalidArgs);
        }
        Err(Status::NotSupported)
    })
}

/// `zx_vmar_destroy()`. The root is what the process lives in: NOT_SUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_destroy(handle: zx_handle_t) -> zx_status_t {
    boundary("zx_vmar_destroy", || {
        Handles::new([handle]).vmar(0, 0)?;
        Err(Status::NotSupported)
    })
}
