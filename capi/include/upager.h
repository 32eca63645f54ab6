// All of it: Zircon's calls for pagers, VMOs and ports.

#ifndef UPAGER_H_
#define UPAGER_H_

#include <zircon/errors.h>
#include <zircon/process.h>
#include <zircon/rights.h>
#include <zircon/status.h>
#include <zircon/syscalls.h>
#include <zircon/syscalls/object.h>
#include <zircon/syscalls/pager.h>
#include <zircon/syscalls/port.h>
#include <zircon/time.h>
#include <zircon/types.h>

#endif // UPAGER_H_
