//! What can be asked of any object: information and properties.

use std::ffi::c_void;

use upager::{PAGE_SIZE, Result, Status};

use crate::address_space;
use crate::boundary::{Out, boundary, items, items_mut};
use crate::object::{Handles, Kind, Memory, Name, Object, has};
use crate::types::{
    ZX_CACHE_POLICY_CACHED, ZX_INFO_HANDLE_BASIC, ZX_INFO_VMO, ZX_INFO_VMO_PAGER_BACKED, ZX_INFO_VMO_RESIZABLE,
    ZX_INFO_VMO_TYPE_PAGED, ZX_INFO_VMO_VIA_HANDLE, ZX_MAX_NAME_LEN, ZX_PROP_NAME, ZX_RIGHT_GET_PROPERTY,
    ZX_RIGHT_INSPECT, ZX_RIGHT_SET_PROPERTY, zx_handle_t, zx_info_handle_basic_t, zx_info_vmo_t, zx_rights_t,
    zx_status_t,
};

fn vmo_info(object: &Object, memory: &Memory, rights: zx_rights_t) -> zx_info_vmo_t {
    let (size, pages, mappings, flags) = match memory {
        Memory::Paged { vmo, resizable } => {
            let flags = ZX_INFO_VMO_PAGER_BACKED | if *resizable { ZX_INFO_VMO_RESIZABLE } else { 0 };
            (vmo.size(), vmo.counts().resident, address_space::count(vmo), flags)
        }
        Memory::Anonymous(vmo) => (vmo.size(), vmo.committed(), 0, 0),
    };
    let bytes = pages.0 * PAGE_SIZE;
    zx_info_vmo_t {
        koid: object.koid,
        name: object.name(),
        size_bytes: size,
        flags: flags | ZX_INFO_VMO_TYPE_PAGED | ZX_INFO_VMO_VIA_HANDLE,
        num_mappings: mappings,
        share_count: 1,
        committed_bytes: bytes,
        handle_rights: rights,
        cache_policy: ZX_CACHE_POLICY_CACHED,
        populated_bytes: bytes,
        // No VMO shares pages with another.
        committed_private_bytes: bytes,
        populated_private_bytes: bytes,
        committed_scaled_bytes: bytes,
        populated_scaled_bytes: bytes,
        ..Default::default()
    }
}

/// Writes the one record of a topic, if there is room for it.
fn put<T>(
    record: impl FnOnce() -> T,
    buffer: *mut c_void,
    buffer_size: usize,
    actual: *mut usize,
    avail: *mut usize,
) -> Result<()> {
    let (actual, avail) = (Out::optional(actual)?, Out::optional(avail)?);
    let fits = buffer_size >= size_of::<T>();
    let to = if fits { Some(Out::new(buffer.cast::<T>())?) } else { None };
    if let Some(actual) = actual {
        actual.set(usize::from(fits));
    }
    if let Some(avail) = avail {
        avail.set(1);
    }
    to.ok_or(Status::BufferTooSmall)?.set(record());
    Ok(())
}

/// `zx_object_get_info()`, of `ZX_INFO_HANDLE_BASIC` and `ZX_INFO_VMO`. Both are one record. Other topics: NOT_SUPPORTED.
/// With a buffer that is too small `actual` and `avail` are set.
///
/// # Safety
/// `buffer` is null or misaligned, or `buffer_size` bytes can be written there; `actual` and `avail` are null or
/// misaligned, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_object_get_info(
    handle: zx_handle_t,
    topic: u32,
    buffer: *mut c_void,
    buffer_size: usize,
    actual: *mut usize,
    avail: *mut usize,
) -> zx_status_t {
    boundary("zx_object_get_info", || {
        let handles = Handles::new([handle]);
        let (object, rights) = handles.object(0)?;
        match topic {
            ZX_INFO_HANDLE_BASIC => {
                let basic = || zx_info_handle_basic_t {
                    koid: object.koid,
                    rights,
                    r#type: object.object_type(),
                    ..Default::default()
                };
                put(basic, buffer, buffer_size, actual, avail)
            }
            ZX_INFO_VMO => {
                let Kind::Vmo(memory) = &object.kind else { return Err(Status::WrongType) };
                has(rights, ZX_RIGHT_INSPECT)?;
                put(|| vmo_info(object, memory, rights), buffer, buffer_size, actual, avail)
            }
            _ => Err(Status::NotSupported),
        }
    })
}

/// `zx_object_get_property()`, of `ZX_PROP_NAME`. Others: NOT_SUPPORTED.
///
/// # Safety
/// `value` is null, or `value_size` bytes can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_object_get_property(
    handle: zx_handle_t,
    property: u32,
    value: *mut c_void,
    value_size: usize,
) -> zx_status_t {
    boundary("zx_object_get_property", || {
        let handles = Handles::new([handle]);
        let (object, rights) = handles.object(0)?;
        has(rights, ZX_RIGHT_GET_PROPERTY)?;
        if property != ZX_PROP_NAME {
            return Err(Status::NotSupported);
        }
        if value.is_null() {
            return Err(Status::InvalidArgs);
        }
        if value_size < ZX_MAX_NAME_LEN {
            return Err(Status::BufferTooSmall);
        }
        // SAFETY: by the contract of this function.
        let to = unsafe { items_mut(value.cast::<u8>(), ZX_MAX_NAME_LEN) }?;
        to.copy_from_slice(&object.name());
        Ok(())
    })
}

/// `zx_object_set_property()`, of `ZX_PROP_NAME`: at most 31 bytes, of which those from the first NUL on do not
/// count. Others: NOT_SUPPORTED.
///
/// # Safety
/// `value` is null, or `value_size` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_object_set_property(
    handle: zx_handle_t,
    property: u32,
    value: *const c_void,
    value_size: usize,
) -> zx_status_t {
    boundary("zx_object_set_property", || {
        let handles = Handles::new([handle]);
        let (object, rights) = handles.object(0)?;
        has(rights, ZX_RIGHT_SET_PROPERTY)?;
        if property != ZX_PROP_NAME {
            return Err(Status::NotSupported);
        }
        // SAFETY: by the contract of this function.
        let from = unsafe { items(value.cast::<u8>(), value_size.min(ZX_MAX_NAME_LEN - 1)) }?;
        let mut name = Name::default();
        for (to, from) in name.iter_mut().zip(from.iter().take_while(|&&byte| byte != 0)) {
            *to = *from;
        }
        object.set_name(name);
        Ok(())
    })
}
