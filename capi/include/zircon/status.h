// The names of errors.

#ifndef ZIRCON_STATUS_H_
#define ZIRCON_STATUS_H_

#include <zircon/types.h>

#ifdef __cplusplus
extern "C" {
#endif

// "ZX_ERR_BAD_STATE" and the like; "(UNKNOWN)" for what is none.
const char* zx_status_get_string(zx_status_t status);

#ifdef __cplusplus
}
#endif

#endif // ZIRCON_STATUS_H_
