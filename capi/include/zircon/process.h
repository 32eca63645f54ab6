// The process itself.

#ifndef ZIRCON_PROCESS_H_
#define ZIRCON_PROCESS_H_

#include <zircon/types.h>

#ifdef __cplusplus
extern "C" {
#endif

// The address space of the process. It is the same handle each time, and not the caller's to close.
zx_handle_t zx_vmar_root_self(void);

#ifdef __cplusplus
}
#endif

#endif // ZIRCON_PROCESS_H_
