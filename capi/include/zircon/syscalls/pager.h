// What a pager is asked and answers.

#ifndef ZIRCON_SYSCALLS_PAGER_H_
#define ZIRCON_SYSCALLS_PAGER_H_

#include <zircon/types.h>

// zx_pager_op_range()
#define ZX_PAGER_OP_FAIL ((uint32_t)1u)
#define ZX_PAGER_OP_DIRTY ((uint32_t)2u)
#define ZX_PAGER_OP_WRITEBACK_BEGIN ((uint32_t)3u)
#define ZX_PAGER_OP_WRITEBACK_END ((uint32_t)4u)

// Also the data of ZX_PAGER_OP_WRITEBACK_BEGIN.
#define ZX_VMO_DIRTY_RANGE_IS_ZERO ((uint64_t)1u)

typedef struct zx_vmo_dirty_range {
  uint64_t offset;
  uint64_t length;
  uint64_t options;
} zx_vmo_dirty_range_t;

// zx_pager_query_vmo_stats()
#define ZX_PAGER_RESET_VMO_STATS ((uint32_t)1u)

typedef struct zx_pager_vmo_stats {
  uint32_t modified;
} zx_pager_vmo_stats_t;

// zx_pager_vmo_stats_t.modified
#define ZX_PAGER_VMO_STATS_MODIFIED ((uint32_t)1u)

#endif // ZIRCON_SYSCALLS_PAGER_H_
