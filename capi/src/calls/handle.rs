//! Handles: close, duplicate, replace.

use upager::{Result, Status};

use crate::boundary::{Out, boundary, items};
use crate::object::{Handles, close, has, replace};
use crate::types::{ZX_RIGHT_DUPLICATE, ZX_RIGHT_SAME_RIGHTS, zx_handle_t, zx_rights_t, zx_status_t};

/// What of the rights there are is asked for.
fn narrow(asked: zx_rights_t, there: zx_rights_t) -> Result<zx_rights_t> {
    match asked {
        ZX_RIGHT_SAME_RIGHTS => Ok(there),
        _ if there & asked == asked => Ok(asked),
        _ => Err(Status::InvalidArgs),
    }
}

fn close_one(handle: zx_handle_t) -> Result<()> {
    if handle == 0 { Ok(()) } else { close(handle) }
}

/// `zx_handle_close()`. Calls that are under way on the object in other threads go on; the object is closed when the last of
/// them has returned.
#[unsafe(no_mangle)]
pub extern "C" fn zx_handle_close(handle: zx_handle_t) -> zx_status_t {
    boundary("zx_handle_close", || close_one(handle))
}

/// `zx_handle_close_many()`. Closes all that it can, also if one is none.
///
/// # Safety
/// `handles` is null or misaligned, or `num_handles` handles can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_handle_close_many(handles: *const zx_handle_t, num_handles: usize) -> zx_status_t {
    boundary("zx_handle_close_many", || {
        if num_handles == 0 {
            return Ok(());
        }
        // SAFETY: by the contract of this function.
        let handles = unsafe { items(handles, num_handles) }?;
        let mut closed = Ok(());
        for &handle in handles {
            closed = close_one(handle).and(closed);
        }
        closed
    })
}

/// `zx_handle_duplicate()`.
///
/// # Safety
/// `out` is null or misaligned, or a handle can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_handle_duplicate(
    handle: zx_handle_t,
    rights: zx_rights_t,
    out: *mut zx_handle_t,
) -> zx_status_t {
    boundary("zx_handle_duplicate", || {
        let handles = Handles::new([handle]);
        let (_, there) = handles.object(0)?;
        has(there, ZX_RIGHT_DUPLICATE)?;
        let out = Out::new(out)?;
        out.set(handles.duplicate(0, narrow(rights, there)?)?);
        Ok(())
    })
}

/// `zx_handle_replace()`. The old handle is closed in any case, if it is one.
///
/// # Safety
/// As for [`zx_handle_duplicate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_handle_replace(
    handle: zx_handle_t,
    rights: zx_rights_t,
    out: *mut zx_handle_t,
) -> zx_status_t {
    boundary("zx_handle_replace", || {
        let out = Out::new(out);
        let fresh = replace(handle, |there| out.as_ref().map_err(|&status| status).and(narrow(rights, there)))?;
        out?.set(fresh);
        Ok(())
    })
}
