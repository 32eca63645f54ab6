// The calls. Each checks its handles first, in the order of the arguments: ZX_ERR_BAD_HANDLE, ZX_ERR_WRONG_TYPE,
// ZX_ERR_ACCESS_DENIED; then the rest. A pointer that is null or misaligned is ZX_ERR_INVALID_ARGS. A call that fails
// changes nothing, except where it says otherwise.

#ifndef ZIRCON_SYSCALLS_H_
#define ZIRCON_SYSCALLS_H_

#include <zircon/process.h>
#include <zircon/syscalls/object.h>
#include <zircon/syscalls/pager.h>
#include <zircon/syscalls/port.h>
#include <zircon/types.h>

#ifdef __cplusplus
extern "C" {
#endif

// Handles. A call that is under way on an object in another thread goes on when the last handle is closed, and
// the object is closed when it returns.
zx_status_t zx_handle_close(zx_handle_t handle);
// Closes all that it can, also if one is none.
zx_status_t zx_handle_close_many(const zx_handle_t* handles, size_t num_handles);
zx_status_t zx_handle_duplicate(zx_handle_t handle, zx_rights_t rights, zx_handle_t* out);
// Closes the handle, also when it fails.
zx_status_t zx_handle_replace(zx_handle_t handle, zx_rights_t rights, zx_handle_t* out);

// Objects. actual and avail may be null.
zx_status_t zx_object_get_info(zx_handle_t handle, uint32_t topic, void* buffer, size_t buffer_size, size_t* actual,
                               size_t* avail);
zx_status_t zx_object_get_property(zx_handle_t handle, uint32_t property, void* value, size_t value_size);
zx_status_t zx_object_set_property(zx_handle_t handle, uint32_t property, const void* value, size_t value_size);

// Pagers.
zx_status_t zx_pager_create(uint32_t options, zx_handle_t* out);
zx_status_t zx_pager_create_vmo(zx_handle_t pager, uint32_t options, zx_handle_t port, uint64_t key, uint64_t size,
                                zx_handle_t* out);
zx_status_t zx_pager_detach_vmo(zx_handle_t pager, zx_handle_t vmo);
// Moves the pages out of aux_vmo, which must not be a pager's (ZX_ERR_BAD_STATE).
zx_status_t zx_pager_supply_pages(zx_handle_t pager, zx_handle_t pager_vmo, uint64_t offset, uint64_t length,
                                  zx_handle_t aux_vmo, uint64_t aux_offset);
zx_status_t zx_pager_op_range(zx_handle_t pager, uint32_t op, zx_handle_t pager_vmo, uint64_t offset, uint64_t length,
                              uint64_t data);
// The buffer is of zx_vmo_dirty_range_t, and may be null if its size is 0. actual and avail may be null.
zx_status_t zx_pager_query_dirty_ranges(zx_handle_t pager, zx_handle_t pager_vmo, uint64_t offset, uint64_t length,
                                        void* buffer, size_t buffer_size, size_t* actual, size_t* avail);
// The buffer is of zx_pager_vmo_stats_t.
zx_status_t zx_pager_query_vmo_stats(zx_handle_t pager, zx_handle_t pager_vmo, uint32_t options, void* buffer,
                                     size_t buffer_size);

// VMOs. A call that needs pages of a pager's VMO blocks until the service has answered, or the VMO is detached.
// One that was not made by a pager has a fixed size, and is never discarded: options must be 0.
zx_status_t zx_vmo_create(uint64_t size, uint32_t options, zx_handle_t* out);
zx_status_t zx_vmo_read(zx_handle_t handle, void* buffer, uint64_t offset, size_t buffer_size);
// When it fails, a part may have been written.
zx_status_t zx_vmo_write(zx_handle_t handle, const void* buffer, uint64_t offset, size_t buffer_size);
zx_status_t zx_vmo_get_size(zx_handle_t handle, uint64_t* size);
zx_status_t zx_vmo_set_size(zx_handle_t handle, uint64_t size);
// There are no children: ZX_ERR_NOT_SUPPORTED.
zx_status_t zx_vmo_create_child(zx_handle_t handle, uint32_t options, uint64_t offset, uint64_t size,
                                zx_handle_t* out);
// No operation uses the buffer.
zx_status_t zx_vmo_op_range(zx_handle_t handle, uint32_t op, uint64_t offset, uint64_t size, void* buffer,
                            size_t buffer_size);

// Mappings, of pagers' VMOs only. A mapped access that fails raises SIGBUS: the service has failed the page, the VMO is
// detached, its pager closed, or it has become smaller. For 20 ms after that so does any access to the page through the
// mapping; then the service is asked again, also for a thread that was stopped there and has not run for so long.
// With ZX_VM_SPECIFIC a mapping is made so far from the start of the VMAR, which must be one of zx_vmar_allocate().
// The rest of what Zircon has is not there: ZX_ERR_NOT_SUPPORTED for VMOs that were not made by a pager, for places in
// the root, whose addresses are the process's too, for ZX_VM_SPECIFIC_OVERWRITE, ZX_VM_OFFSET_IS_UPPER_LIMIT and
// alignments, for code, for mappings past the end of the VMO; for a place at which a part of a mapping was unmapped, as
// long as another part of the mapping is there; and for everything where Linux gives the process no userfaultfd.
zx_status_t zx_vmar_map(zx_handle_t handle, zx_vm_option_t options, uint64_t vmar_offset, zx_handle_t vmo,
                        uint64_t vmo_offset, uint64_t len, zx_vaddr_t* mapped_addr);
// What is mapped in the range, also parts of mappings, and the VMARs in it, which must be in it as a whole. Threads that
// are stopped there get SIGBUS.
zx_status_t zx_vmar_unmap(zx_handle_t handle, zx_vaddr_t addr, uint64_t len);
// Any part of what is mapped. In the range there must be mappings without a gap.
zx_status_t zx_vmar_protect(zx_handle_t handle, zx_vm_option_t options, zx_vaddr_t addr, uint64_t len);
// As zx_vmo_op_range(), by address, also for a part of a mapping. No operation uses the buffer.
zx_status_t zx_vmar_op_range(zx_handle_t handle, uint32_t op, zx_vaddr_t address, uint64_t size, void* buffer,
                             size_t buffer_size);
// The VMAR stays when its handles are closed, until it, or one that it lies in, is destroyed. In the root it goes where
// the system says: ZX_VM_SPECIFIC there is ZX_ERR_NOT_SUPPORTED.
zx_status_t zx_vmar_allocate(zx_handle_t parent_vmar, zx_vm_option_t options, uint64_t offset, uint64_t size,
                             zx_handle_t* child_vmar, zx_vaddr_t* child_addr);
// Unmaps what is mapped in it, and destroys those in it. ZX_ERR_NOT_SUPPORTED for the root.
zx_status_t zx_vmar_destroy(zx_handle_t handle);

// Ports.
zx_status_t zx_port_create(uint32_t options, zx_handle_t* out);
zx_status_t zx_port_queue(zx_handle_t handle, const zx_port_packet_t* packet);
zx_status_t zx_port_wait(zx_handle_t handle, zx_time_t deadline, zx_port_packet_t* packet);
// Withdraws what zx_object_wait_async() queued. There is no such call here: with good handles, ZX_ERR_NOT_FOUND.
zx_status_t zx_port_cancel(zx_handle_t handle, zx_handle_t source, uint64_t key);
// Withdraws the user packets and the page requests that are queued under the key. A request stays in flight.
zx_status_t zx_port_cancel_key(zx_handle_t handle, uint32_t options, uint64_t key);

// Time.
zx_time_t zx_clock_get_monotonic(void);
zx_time_t zx_deadline_after(zx_duration_t nanoseconds);
zx_status_t zx_nanosleep(zx_time_t deadline);

// System.
uint32_t zx_system_get_page_size(void);

#ifdef __cplusplus
}
#endif

#endif // ZIRCON_SYSCALLS_H_
