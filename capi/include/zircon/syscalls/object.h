// What can be asked of an object.

#ifndef ZIRCON_SYSCALLS_OBJECT_H_
#define ZIRCON_SYSCALLS_OBJECT_H_

#include <zircon/types.h>

// Topics of zx_object_get_info(). The high bits have the version of the record.
#define ZX_INFO_HANDLE_BASIC ((uint32_t)2u)
#define ZX_INFO_VMO ((uint32_t)(23u | 3u << 28))

typedef struct zx_info_handle_basic {
  zx_koid_t koid;
  zx_rights_t rights;
  zx_obj_type_t type;
  zx_koid_t related_koid; // 0
  uint32_t reserved;
  uint8_t padding1[4];
} zx_info_handle_basic_t;

// zx_info_vmo_t.flags
#define ZX_INFO_VMO_TYPE_PAGED ((uint32_t)1u << 0)
#define ZX_INFO_VMO_RESIZABLE ((uint32_t)1u << 1)
#define ZX_INFO_VMO_VIA_HANDLE ((uint32_t)1u << 3)
#define ZX_INFO_VMO_PAGER_BACKED ((uint32_t)1u << 5)

typedef struct zx_info_vmo {
  zx_koid_t koid;
  char name[ZX_MAX_NAME_LEN];
  uint64_t size_bytes;
  zx_koid_t parent_koid; // 0: no VMO has a parent
  size_t num_children;   // 0
  size_t num_mappings;
  size_t share_count;
  uint32_t flags;
  uint8_t padding1[4];
  uint64_t committed_bytes; // of pages that have a frame
  zx_rights_t handle_rights;
  uint32_t cache_policy;
  uint64_t metadata_bytes;          // 0: not counted
  uint64_t committed_change_events; // 0: not counted
  uint64_t populated_bytes;         // as committed: no page is compressed
  // As above: no VMO shares pages with another.
  uint64_t committed_private_bytes;
  uint64_t populated_private_bytes;
  uint64_t committed_scaled_bytes;
  uint64_t populated_scaled_bytes;
  uint64_t committed_fractional_scaled_bytes;
  uint64_t populated_fractional_scaled_bytes;
} zx_info_vmo_t;

// zx_object_get_property(), zx_object_set_property()
#define ZX_PROP_NAME ((uint32_t)3u)

#endif // ZIRCON_SYSCALLS_OBJECT_H_
