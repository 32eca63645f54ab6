//! Ports: create, queue, wait, cancel.

use upager::{Packet, Port, Status};

use crate::boundary::{Out, boundary, value};
use crate::calls::clock::Deadline;
use crate::object::{Handles, Kind, NewHandle, PLATFORM};
use crate::types::{
    ZX_DEFAULT_PORT_RIGHTS, ZX_RIGHT_READ, ZX_RIGHT_WRITE, zx_handle_t, zx_port_packet_t, zx_status_t, zx_time_t,
};

/// `zx_port_create()`. No option is known here: there are no interrupts to bind.
///
/// # Safety
/// `out` is null or misaligned, or a handle can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_port_create(options: u32, out: *mut zx_handle_t) -> zx_status_t {
    boundary("zx_port_create", || {
        if options != 0 {
            return Err(Status::InvalidArgs);
        }
        let out = Out::new(out)?;
        let handle = NewHandle::reserve()?;
        out.set(handle.fill(Kind::Port(Port::new(PLATFORM.clone())), ZX_DEFAULT_PORT_RIGHTS));
        Ok(())
    })
}

/// `zx_port_queue()`.
///
/// # Safety
/// `packet` is null or misaligned, or a packet can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_port_queue(handle: zx_handle_t, packet: *const zx_port_packet_t) -> zx_status_t {
    boundary("zx_port_queue", || {
        let handles = Handles::new([handle]);
        let port = handles.port(0, ZX_RIGHT_WRITE)?;
        port.queue(&value(packet)?)
    })
}

/// `zx_port_wait()`. A port whose last handle is closed meanwhile goes on for the calls that wait at it, until they
/// return.
///
/// # Safety
/// `packet` is null or misaligned, or a packet can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zx_port_wait(
    handle: zx_handle_t,
    deadline: zx_time_t,
    packet: *mut zx_port_packet_t,
) -> zx_status_t {
    boundary("zx_port_wait", || {
        let handles = Handles::new([handle]);
        let port = handles.port(0, ZX_RIGHT_READ)?;
        let out = Out::new(packet)?;
        let mut taken = [Packet::default()];
        if port.take(&mut taken) == 0 {
            match Deadline::of(deadline) {
                Deadline::Past => return Err(Status::TimedOut),
                Deadline::At(instant) => port.wait_until(Some(instant), &mut taken)?,
                Deadline::Never => port.wait_until(None, &mut taken)?,
            };
        }
        out.set(taken[0]);
        Ok(())
    })
}

/// `zx_port_cancel()`: withdraws what `zx_object_wait_async()` has queued for `source`. There is no such call here, so
/// there is never anything: NOT_FOUND. What is queued by key, [`zx_port_cancel_key`] withdraws.
#[unsafe(no_mangle)]
pub extern "C" fn zx_port_cancel(handle: zx_handle_t, source: zx_handle_t, _key: u64) -> zx_status_t {
    boundary("zx_port_cancel", || {
        let handles = Handles::new([handle, source]);
        handles.port(0, ZX_RIGHT_WRITE)?;
        handles.object(1)?;
        Err(Status::NotFound)
    })
}

/// `zx_port_cancel_key()`.
#[unsafe(no_mangle)]
pub extern "C" fn zx_port_cancel_key(handle: zx_handle_t, options: u32, key: u64) -> zx_status_t {
    boundary("zx_port_cancel_key", || {
        let handles = Handles::new([handle]);
        let port = handles.port(0, ZX_RIGHT_WRITE)?;
        if options != 0 {
            return Err(Status::InvalidArgs);
        }
        port.cancel(key)
    })
}
