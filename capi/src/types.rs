//! Zircon's types and numbers, as `capi/include` has them. `tests/header.rs` checks that the two agree.

#![allow(non_camel_case_types)] // the names are C's

use std::mem::offset_of;

pub type zx_status_t = i32;
pub type zx_handle_t = u32;
pub type zx_rights_t = u32;
pub type zx_obj_type_t = u32;
pub type zx_koid_t = u64;
pub type zx_time_t = i64;
pub type zx_duration_t = i64;
pub type zx_vaddr_t = usize;
pub type zx_vm_option_t = u32;
pub type zx_port_packet_t = upager::Packet;
pub type zx_vmo_dirty_range_t = upager::DirtyRange;
pub type zx_pager_vmo_stats_t = upager::VmoStats;

pub const ZX_OK: zx_status_t = 0;

pub const ZX_RIGHT_NONE: zx_rights_t = 0;
pub const ZX_RIGHT_DUPLICATE: zx_rights_t = 1 << 0;
pub const ZX_RIGHT_TRANSFER: zx_rights_t = 1 << 1;
pub const ZX_RIGHT_READ: zx_rights_t = 1 << 2;
pub const ZX_RIGHT_WRITE: zx_rights_t = 1 << 3;
pub const ZX_RIGHT_MAP: zx_rights_t = 1 << 5;
pub const ZX_RIGHT_GET_PROPERTY: zx_rights_t = 1 << 6;
pub const ZX_RIGHT_SET_PROPERTY: zx_rights_t = 1 << 7;
pub const ZX_RIGHT_SIGNAL: zx_rights_t = 1 << 12;
pub const ZX_RIGHT_WAIT: zx_rights_t = 1 << 14;
pub const ZX_RIGHT_INSPECT: zx_rights_t = 1 << 15;
pub const ZX_RIGHT_OP_CHILDREN: zx_rights_t = 1 << 21;
pub const ZX_RIGHT_RESIZE: zx_rights_t = 1 << 22;
pub const ZX_RIGHT_ATTACH_VMO: zx_rights_t = 1 << 23;
pub const ZX_RIGHT_MANAGE_VMO: zx_rights_t = 1 << 24;
pub const ZX_RIGHT_SAME_RIGHTS: zx_rights_t = 0x8000_0000;
pub const ZX_RIGHTS_BASIC: zx_rights_t = ZX_RIGHT_TRANSFER | ZX_RIGHT_DUPLICATE | ZX_RIGHT_WAIT | ZX_RIGHT_INSPECT;
pub const ZX_RIGHTS_IO: zx_rights_t = ZX_RIGHT_READ | ZX_RIGHT_WRITE;
pub const ZX_RIGHTS_PROPERTY: zx_rights_t = ZX_RIGHT_GET_PROPERTY | ZX_RIGHT_SET_PROPERTY;
pub const ZX_DEFAULT_PORT_RIGHTS: zx_rights_t = (ZX_RIGHTS_BASIC & !ZX_RIGHT_WAIT) | ZX_RIGHTS_IO;
pub const ZX_DEFAULT_VMO_RIGHTS: zx_rights_t =
    ZX_RIGHTS_BASIC | ZX_RIGHTS_IO | ZX_RIGHTS_PROPERTY | ZX_RIGHT_MAP | ZX_RIGHT_SIGNAL;
/// A VMAR that can be mapped in for reading, or writing, gives that right besides.
pub const ZX_DEFAULT_VMAR_RIGHTS: zx_rights_t = (ZX_RIGHTS_BASIC & !ZX_RIGHT_WAIT) | ZX_RIGHT_OP_CHILDREN;
/// Those of the root: code cannot be mapped.
pub const ZX_ROOT_VMAR_RIGHTS: zx_rights_t = ZX_DEFAULT_VMAR_RIGHTS | ZX_RIGHTS_IO;
/// More than Zircon gives, which by some of its pages gives neither DUPLICATE nor TRANSFER. No call asks for
/// ATTACH_VMO or MANAGE_VMO: the page of `zx_pager_detach_vmo()` knows no ACCESS_DENIED.
pub const ZX_DEFAULT_PAGER_RIGHTS: zx_rights_t =
    (ZX_RIGHTS_BASIC & !ZX_RIGHT_WAIT) | ZX_RIGHTS_PROPERTY | ZX_RIGHT_ATTACH_VMO | ZX_RIGHT_MANAGE_VMO;

pub const ZX_OBJ_TYPE_VMO: zx_obj_type_t = 3;
pub const ZX_OBJ_TYPE_PORT: zx_obj_type_t = 6;
pub const ZX_OBJ_TYPE_VMAR: zx_obj_type_t = 18;
pub const ZX_OBJ_TYPE_PAGER: zx_obj_type_t = 28;

pub const ZX_INFO_HANDLE_BASIC: u32 = 2;
pub const ZX_INFO_VMO: u32 = 0x3000_0017; // topic 23, version 3
pub const ZX_INFO_VMO_TYPE_PAGED: u32 = 1 << 0;
pub const ZX_INFO_VMO_RESIZABLE: u32 = 1 << 1;
pub const ZX_INFO_VMO_VIA_HANDLE: u32 = 1 << 3;
pub const ZX_INFO_VMO_PAGER_BACKED: u32 = 1 << 5;
pub const ZX_PROP_NAME: u32 = 3;
pub const ZX_MAX_NAME_LEN: usize = 32;
pub const ZX_CACHE_POLICY_CACHED: u32 = 0;

pub const ZX_VMO_RESIZABLE: u32 = 1 << 1;
pub const ZX_VMO_DISCARDABLE: u32 = 1 << 2;
pub const ZX_VMO_TRAP_DIRTY: u32 = 1 << 3;
pub const ZX_VMO_UNBOUNDED: u32 = 1 << 4;
pub const ZX_VMO_CHILD_SNAPSHOT: u32 = 1 << 0;
pub const ZX_VMO_CHILD_RESIZABLE: u32 = 1 << 2;
pub const ZX_VMO_CHILD_SLICE: u32 = 1 << 3;
pub const ZX_VMO_CHILD_SNAPSHOT_AT_LEAST_ON_WRITE: u32 = 1 << 4;
pub const ZX_VMO_CHILD_NO_WRITE: u32 = 1 << 5;
pub const ZX_VMO_CHILD_REFERENCE: u32 = 1 << 6;
pub const ZX_VMO_CHILD_SNAPSHOT_MODIFIED: u32 = 1 << 7;
pub const ZX_VMO_OP_COMMIT: u32 = 1;
pub const ZX_VMO_OP_DECOMMIT: u32 = 2;
pub const ZX_VMO_OP_ZERO: u32 = 10;
pub const ZX_VMO_OP_DONT_NEED: u32 = 12;
pub const ZX_VMO_OP_ALWAYS_NEED: u32 = 13;
pub const ZX_VMO_OP_PREFETCH: u32 = 14;
pub const ZX_VM_PERM_READ: zx_vm_option_t = 1 << 0;
pub const ZX_VM_PERM_WRITE: zx_vm_option_t = 1 << 1;
pub const ZX_VM_PERM_EXECUTE: zx_vm_option_t = 1 << 2;
pub const ZX_VM_COMPACT: zx_vm_option_t = 1 << 3;
pub const ZX_VM_SPECIFIC: zx_vm_option_t = 1 << 4;
pub const ZX_VM_SPECIFIC_OVERWRITE: zx_vm_option_t = 1 << 5;
pub const ZX_VM_CAN_MAP_SPECIFIC: zx_vm_option_t = 1 << 6;
pub const ZX_VM_CAN_MAP_READ: zx_vm_option_t = 1 << 7;
pub const ZX_VM_CAN_MAP_WRITE: zx_vm_option_t = 1 << 8;
pub const ZX_VM_CAN_MAP_EXECUTE: zx_vm_option_t = 1 << 9;
pub const ZX_VM_MAP_RANGE: zx_vm_option_t = 1 << 10;
pub const ZX_VM_REQUIRE_NON_RESIZABLE: zx_vm_option_t = 1 << 11;
pub const ZX_VM_ALLOW_FAULTS: zx_vm_option_t = 1 << 12;
pub const ZX_VM_OFFSET_IS_UPPER_LIMIT: zx_vm_option_t = 1 << 13;
pub const ZX_VM_PERM_READ_IF_XOM_UNSUPPORTED: zx_vm_option_t = 1 << 14;
pub const ZX_VMAR_OP_COMMIT: u32 = 1;
pub const ZX_VMAR_OP_DECOMMIT: u32 = 2;
pub const ZX_VMAR_OP_MAP_RANGE: u32 = 3;
pub const ZX_VMAR_OP_ZERO: u32 = 10;
pub const ZX_VMAR_OP_DONT_NEED: u32 = 12;
pub const ZX_VMAR_OP_ALWAYS_NEED: u32 = 13;
pub const ZX_VMAR_OP_PREFETCH: u32 = 14;
pub const ZX_PAGER_OP_FAIL: u32 = 1;
pub const ZX_PAGER_OP_DIRTY: u32 = 2;
pub const ZX_PAGER_OP_WRITEBACK_BEGIN: u32 = 3;
pub const ZX_PAGER_OP_WRITEBACK_END: u32 = 4;
pub const ZX_VMO_DIRTY_RANGE_IS_ZERO: u64 = 1;
pub const ZX_PAGER_VMO_STATS_MODIFIED: u32 = 1;
pub const ZX_PAGER_RESET_VMO_STATS: u32 = 1;
pub const ZX_PAGER_VMO_READ: u16 = 0;
pub const ZX_PAGER_VMO_COMPLETE: u16 = 1;
pub const ZX_PAGER_VMO_DIRTY: u16 = 2;
pub const ZX_PKT_TYPE_USER: u32 = 0;
pub const ZX_PKT_TYPE_PAGE_REQUEST: u32 = 9;

pub const ZX_TIME_INFINITE: zx_time_t = i64::MAX;
pub const ZX_TIME_INFINITE_PAST: zx_time_t = i64::MIN;

/// `ZX_INFO_HANDLE_BASIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct zx_info_handle_basic_t {
    pub koid: zx_koid_t,
    pub rights: zx_rights_t,
    pub r#type: zx_obj_type_t,
    pub related_koid: zx_koid_t,
    pub reserved: u32,
    pub padding1: [u8; 4],
}

const _: () = {
    assert!(size_of::<zx_info_handle_basic_t>() == 32 && align_of::<zx_info_handle_basic_t>() == 8);
    assert!(offset_of!(zx_info_handle_basic_t, rights) == 8);
    assert!(offset_of!(zx_info_handle_basic_t, r#type) == 12);
    assert!(offset_of!(zx_info_handle_basic_t, related_koid) == 16);
};

/// `ZX_INFO_VMO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct zx_info_vmo_t {
    pub koid: zx_koid_t,
    pub name: [u8; ZX_MAX_NAME_LEN],
    pub size_bytes: u64,
    pub parent_koid: zx_koid_t,
    pub num_children: usize,
    pub num_mappings: usize,
    pub share_count: usize,
    pub flags: u32,
    pub padding1: [u8; 4],
    pub committed_bytes: u64,
    pub handle_rights: zx_rights_t,
    pub cache_policy: u32,
    pub metadata_bytes: u64,
    pub committed_change_events: u64,
    pub populated_bytes: u64,
    pub committed_private_bytes: u64,
    pub populated_private_bytes: u64,
    pub committed_scaled_bytes: u64,
    pub populated_scaled_bytes: u64,
    pub committed_fractional_scaled_bytes: u64,
    pub populated_fractional_scaled_bytes: u64,
}

// Where the public documentation has them, on machines of 64 bits. tests/capi/layout.h says the same of the headers.
const _: () = {
    assert!(size_of::<zx_info_vmo_t>() == 176 && align_of::<zx_info_vmo_t>() == 8);
    assert!(offset_of!(zx_info_vmo_t, name) == 8);
    assert!(offset_of!(zx_info_vmo_t, size_bytes) == 40);
    assert!(offset_of!(zx_info_vmo_t, parent_koid) == 48);
    assert!(offset_of!(zx_info_vmo_t, num_children) == 56);
    assert!(offset_of!(zx_info_vmo_t, num_mappings) == 64);
    assert!(offset_of!(zx_info_vmo_t, share_count) == 72);
    assert!(offset_of!(zx_info_vmo_t, flags) == 80);
    assert!(offset_of!(zx_info_vmo_t, committed_bytes) == 88);
    assert!(offset_of!(zx_info_vmo_t, handle_rights) == 96);
    assert!(offset_of!(zx_info_vmo_t, cache_policy) == 100);
    assert!(offset_of!(zx_info_vmo_t, metadata_bytes) == 104);
    assert!(offset_of!(zx_info_vmo_t, committed_change_events) == 112);
    assert!(offset_of!(zx_info_vmo_t, populated_bytes) == 120);
    assert!(offset_of!(zx_info_vmo_t, committed_private_bytes) == 128);
    assert!(offset_of!(zx_info_vmo_t, populated_private_bytes) == 136);
    assert!(offset_of!(zx_info_vmo_t, committed_scaled_bytes) == 144);
    assert!(offset_of!(zx_info_vmo_t, populated_scaled_bytes) == 152);
    assert!(offset_of!(zx_info_vmo_t, committed_fractional_scaled_bytes) == 160);
    assert!(offset_of!(zx_info_vmo_t, populated_fractional_scaled_bytes) == 168);
};

// Types of the core, as C lays them out.
const _: () = {
    assert!(size_of::<zx_port_packet_t>() == 48 && align_of::<zx_port_packet_t>() == 8);
    assert!(size_of::<zx_vmo_dirty_range_t>() == 24 && align_of::<zx_vmo_dirty_range_t>() == 8);
    assert!(size_of::<zx_pager_vmo_stats_t>() == 4 && align_of::<zx_pager_vmo_stats_t>() == 4);
};
