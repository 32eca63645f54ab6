//! Mappings, and the VMARs that they are made in.
//!
//! A mapped access that fails raises SIGBUS, on Linux what a process that Zircon would end with an exception gets.
//!
//! What there is: mappings of pagers' VMOs, readable or readable and writable; in the root at addresses of the system's choice, in
//! VMARs that were allocated also at places of the caller's. They are unmapped, protected and operated on in any part. What there is not, is
//! NOT_SUPPORTED: VMOs without a pager, places in the root, overwriting, upper limits, alignments, code,
//! mappings past the end of their VMO; and to map where a part of a mapping was, while another part of it is there.

use std::ops::Range;

use upager::{ByteRange, PAGE_SIZE, Result, Status, VmoOp, block_on};
use upager_linux::Protection;

use crate::address_space::{self, Place};
use crate::boundary::{Out, boundary};
use crate::object::{Handles, Kind, Memory, NewHandle, root_vmar};
use crate::types::{
    ZX_DEFAULT_VMAR_RIGHTS, ZX_RIGHT_MAP, ZX_RIGHT_READ, ZX_RIGHT_WRITE, ZX_VM_ALLOW_FAULTS, ZX_VM_CAN_MAP_EXECUTE,
    ZX_VM_CAN_MAP_READ, ZX_VM_CAN_MAP_SPECIFIC, ZX_VM_CAN_MAP_WRITE, ZX_VM_COMPACT, ZX_VM_MAP_RANGE,
    ZX_VM_OFFSET_IS_UPPER_LIMIT, ZX_VM_PERM_EXECUTE, ZX_VM_PERM_READ, ZX_VM_PERM_READ_IF_XOM_UNSUPPORTED,
    ZX_VM_PERM_WRITE, ZX_VM_REQUIRE_NON_RESIZABLE, ZX_VM_SPECIFIC, ZX_VM_SPECIFIC_OVERWRITE, ZX_VMAR_OP_MAP_RANGE,
    zx_handle_t, zx_rights_t, zx_status_t, zx_vaddr_t, zx_vm_option_t,
};

/// What makes a mapping that there is here. The hint to bring pages in at once is taken and not followed, and
/// any mapping may fault.
const KNOWN: zx_vm_option_t = ZX_VM_PERM_READ
    | ZX_VM_PERM_WRITE
    | ZX_VM_SPECIFIC
    | ZX_VM_MAP_RANGE
    | ZX_VM_REQUIRE_NON_RESIZABLE
    | ZX_VM_ALLOW_FAULTS;
/// What makes a VMAR that there is here. Its mappings are as compact as they can be in any case.
const KNOWN_OF_VMARS: zx_vm_option_t =
    ZX_VM_SPECIFIC | ZX_VM_COMPACT | ZX_VM_CAN_MAP_SPECIFIC | ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE;
/// What Zircon has of both besides. The highest bits ask for an alignment.
const ZIRCONS: zx_vm_option_t = ZX_VM_SPECIFIC_OVERWRITE | ZX_VM_OFFSET_IS_UPPER_LIMIT | 0x1f << 24;
const ZIRCONS_OF_MAPPINGS: zx_vm_option_t = ZIRCONS | ZX_VM_PERM_EXECUTE | ZX_VM_PERM_READ_IF_XOM_UNSUPPORTED;

/// All of them are such as there are.
fn check(options: zx_vm_option_t, known: zx_vm_option_t, zircons: zx_vm_option_t) -> Result<()> {
    match options & !known {
        0 => Ok(()),
        others if others & !zircons != 0 => Err(Status::InvalidArgs),
        _ => Err(Status::NotSupported),
    }
}

/// What may be done to a mapping, by its options.
fn protection(options: zx_vm_option_t, known: zx_vm_option_t) -> Result<Protection> {
    check(options, known, ZIRCONS_OF_MAPPINGS)?;
    match options & (ZX_VM_PERM_READ | ZX_VM_PERM_WRITE) {
        0 => Err(Status::NotSupported),
        ZX_VM_PERM_READ => Ok(Protection::ReadOnly),
        ZX_VM_PERM_WRITE => Err(Status::InvalidArgs), // Zircon's too
        _ => Ok(Protection::ReadWrite),
    }
}

/// Where in a VMAR that can do this.
fn place(options: zx_vm_option_t, offset: u64, can: zx_vm_option_t) -> Result<Place> {
    if options & ZX_VM_SPECIFIC == 0 {
        return if offset == 0 { Ok(Place::Anywhere) } else { Err(Status::InvalidArgs) };
    }
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Status::InvalidArgs);
    }
    if can & ZX_VM_CAN_MAP_SPECIFIC == 0 { Err(Status::AccessDenied) } else { Ok(Place::At(offset)) }
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

/// `zx_vmar_map()`: with `ZX_VM_SPECIFIC` so far from the start of the VMAR, which must not be the root, and else at an address of the
/// system's choice. `ZX_VM_MAP_RANGE` and `ZX_VM_ALLOW_FAULTS` are taken and change nothing. The mapping keeps the VMO when its
/// handles are closed.
///
/// NOT_SUPPORTED: see the module; or the system has no userfaultfd for the process. BUFFER_TOO_SMALL: the
/// VMO is smaller, and `ZX_VM_ALLOW_FAULTS` was not given. ALREADY_EXISTS: something is there. NO_MEMORY: the VMAR has no room.
/// BAD_STATE: it was destroyed.
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
        let (vmar, _) = handles.vmar(0, rights(options))?;
        let memory = handles.vmo(1, ZX_RIGHT_MAP | rights(options))?;
        let out = Out::new(mapped_addr)?;
        let protection = protection(options, KNOWN)?;
        let place = place(options, vmar_offset, vmar.can())?;
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Status::OutOfRange)?;
        if len == 0 || !vmo_offset.is_multiple_of(PAGE_SIZE) {
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
        let may_write = handles.object(1)?.1 & ZX_RIGHT_WRITE != 0;
        out.set(address_space::map(vmar, place, vmo, ByteRange::new(vmo_offset, len), protection, may_write)?);
        Ok(())
    })
}

/// `zx_vmar_unmap()`: everything that is mapped in the range, and the VMARs in it. Threads that are stopped there get SIGBUS.
///
/// NOT_FOUND: there is nothing. INVALID_ARGS: the VMAR does not have the range, or one of those in it lies there only in part.
/// ACCESS_DENIED: there are VMARs, and the handle has no `ZX_RIGHT_OP_CHILDREN`. BAD_STATE: the VMAR was destroyed.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_unmap(handle: zx_handle_t, addr: zx_vaddr_t, len: u64) -> zx_status_t {
    boundary("zx_vmar_unmap", || {
        let handles = Handles::new([handle]);
        let (vmar, children) = handles.vmar(0, 0)?;
        address_space::unmap(vmar, &pages(addr, len)?, children)
    })
}

/// `zx_vmar_protect()`: all that is mapped in the range, in the VMARs there too.
///
/// NOT_FOUND: an address has no mapping. ACCESS_DENIED: one was mapped with a handle that could not write, or in a VMAR that cannot;
/// and otherwise as [`zx_vmar_unmap`].
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_protect(
    handle: zx_handle_t,
    options: zx_vm_option_t,
    addr: zx_vaddr_t,
    len: u64,
) -> zx_status_t {
    boundary("zx_vmar_protect", || {
        let handles = Handles::new([handle]);
        let (vmar, children) = handles.vmar(0, rights(options))?;
        let protection = protection(options, ZX_VM_PERM_READ | ZX_VM_PERM_WRITE)?;
        address_space::protect(vmar, &pages(addr, len)?, protection, children)
    })
}

/// `zx_vmar_op_range()`: as `zx_vmo_op_range()`, by address. `ZX_VMAR_OP_MAP_RANGE` is taken and changes nothing, since who touches a
/// page gets it. No operation uses the buffer.
///
/// BAD_STATE: an address is not mapped. ACCESS_DENIED: COMMIT, DECOMMIT or ZERO of what was mapped with a handle that
/// could not write, or in a VMAR that cannot; and otherwise as [`zx_vmar_unmap`].
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
        let (vmar, children) = handles.vmar(0, 0)?;
        let op = if op == ZX_VMAR_OP_MAP_RANGE { None } else { Some(VmoOp::from_raw(op)?) };
        let range = pages(address, size)?;
        let writes = matches!(op, Some(VmoOp::Commit | VmoOp::Decommit | VmoOp::Zero));
        let mapped = address_space::mapped(vmar, &range, children, writes)?;
        let Some(op) = op else { return Ok(()) };
        for (vmo, bytes) in mapped {
            block_on(vmo.op_range(op, bytes))?;
        }
        Ok(())
    })
}

/// `zx_vmar_allocate()`. In the root at an address of the system's choice, and elsewhere as [`zx_vmar_map`]. A VMAR is there until it, or one that it
/// lies in, is destroyed, also without a handle. `ZX_VM_COMPACT` is taken and changes nothing.
///
/// NOT_SUPPORTED: `ZX_VM_CAN_MAP_EXECUTE`, and see the module. ACCESS_DENIED: the parent's handle has not the rights that go with
/// the permissions. The rest as [`zx_vmar_map`].
///
/// # Safety
/// `child_vmar` is null or misaligned, or a handle can be written there, and `child_addr`, or an address can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_vmar_allocate(
    parent_vmar: zx_handle_t,
    options: zx_vm_option_t,
    offset: u64,
    size: u64,
    child_vmar: *mut zx_handle_t,
    child_addr: *mut zx_vaddr_t,
) -> zx_status_t {
    boundary("zx_vmar_allocate", || {
        let handles = Handles::new([parent_vmar]);
        let read = if options & ZX_VM_CAN_MAP_READ == 0 { 0 } else { ZX_RIGHT_READ };
        let rights = read | if options & ZX_VM_CAN_MAP_WRITE == 0 { 0 } else { ZX_RIGHT_WRITE };
        let (parent, _) = handles.vmar(0, rights)?;
        let (handle, address) = (Out::new(child_vmar)?, Out::new(child_addr)?);
        check(options, KNOWN_OF_VMARS, ZIRCONS | ZX_VM_CAN_MAP_EXECUTE)?;
        let place = place(options, offset, parent.can())?;
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs);
        }
        let len = usize::try_from(size).map_err(|_| Status::InvalidArgs)?;
        let made = NewHandle::reserve()?;
        let can = options & (ZX_VM_CAN_MAP_SPECIFIC | ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE);
        let vmar = address_space::allocate(parent, place, len, can)?;
        address.set(vmar.start());
        handle.set(made.fill(Kind::Vmar(vmar), ZX_DEFAULT_VMAR_RIGHTS | rights));
        Ok(())
    })
}

/// `zx_vmar_destroy()`: with all that is mapped in it, and the VMARs in it. Threads that are stopped there get SIGBUS.
///
/// BAD_STATE: it was destroyed. NOT_SUPPORTED: the root is what the process lives in.
#[unsafe(no_mangle)]
pub extern "C" fn zx_vmar_destroy(handle: zx_handle_t) -> zx_status_t {
    boundary("zx_vmar_destroy", || {
        let handles = Handles::new([handle]);
        let (vmar, _) = handles.vmar(0, 0)?;
        if vmar.is_root() { Err(Status::NotSupported) } else { address_space::destroy(vmar) }
    })
}
