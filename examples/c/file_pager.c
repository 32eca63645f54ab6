// Serves a file as a VMO: its pages are read when somebody needs them, and written back when it is over.
//
//   file_pager FILE show OFFSET LENGTH    writes these bytes of the file to the standard output
//   file_pager FILE put OFFSET TEXT       overwrites what is there by TEXT
//   file_pager FILE upper                 turns every letter of ASCII into a capital
//
// One thread is the service: it waits at the port for page requests, reads the pages from the file and supplies
// them. The main thread uses the VMO, and knows nothing of the file. Then it detaches the VMO; what the service gets
// last is COMPLETE, and so it asks which pages are dirty, and writes them back.

#define _POSIX_C_SOURCE 200809L

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <upager.h>

// How much is read or written at a time, a multiple of the page size.
#define CHUNK ((size_t)256 << 10)

struct file {
  int fd;
  uint64_t size;
  zx_handle_t port;
  zx_handle_t pager;
  zx_handle_t vmo;
  // An anonymous VMO, out of which pages are supplied.
  zx_handle_t aux;
  char* buffer;
  uint64_t pages_read;
  uint64_t pages_written;
  bool failed;
};

static uint64_t page_size;

static void complain(const char* what, zx_status_t status) {
  fprintf(stderr, "file_pager: %s: %s\n", what, zx_status_get_string(status));
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

// Reads bytes of the file into the buffer; what is past its end is zeros.
static zx_status_t read_file(const struct file* file, uint64_t offset, size_t length) {
  memset(file->buffer, 0, length);
  size_t done = 0;
  while (done < length) {
    const ssize_t n = pread(file->fd, file->buffer + done, length - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      fprintf(stderr, "file_pager: reading at %" PRIu64 ": %s\n", offset + done, strerror(errno));
      return ZX_ERR_IO;
    }
    if (n == 0) break;  // the end of the file, in its last page
    done += (size_t)n;
  }
  return ZX_OK;
}

static zx_status_t write_file(const struct file* file, uint64_t offset, size_t length) {
  size_t done = 0;
  while (done < length) {
    const ssize_t n = pwrite(file->fd, file->buffer + done, length - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      fprintf(stderr, "file_pager: writing at %" PRIu64 ": %s\n", offset + done, strerror(errno));
      return ZX_ERR_IO;
    }
    done += (size_t)n;
  }
  return ZX_OK;
}

// Answers READ: with the pages, or with the reason why there are none.
static void answer_read(struct file* file, uint64_t offset, uint64_t length) {
  while (length > 0) {
    const size_t part = (size_t)least(length, CHUNK);
    zx_status_t status = read_file(file, offset, part);
    if (status == ZX_OK) status = zx_vmo_write(file->aux, file->buffer, 0, part);
    if (status == ZX_OK) status = zx_pager_supply_pages(file->pager, file->vmo, offset, part, file->aux, 0);
    if (status == ZX_ERR_BAD_STATE) return;  // detached meanwhile: nobody waits any more
    if (status != ZX_OK) {
      file->failed = true;
      status = zx_pager_op_range(file->pager, ZX_PAGER_OP_FAIL, file->vmo, offset, length, (uint64_t)(int64_t)ZX_ERR_IO);
      if (status != ZX_OK) complain("failing a request", status);
      return;
    }
    file->pages_read += part / page_size;
    offset += part;
    length -= part;
  }
}

// Writes a range of dirty pages to the file. They are clean only when they are safe there.
static zx_status_t write_back(struct file* file, uint64_t offset, uint64_t length) {
  zx_status_t status = zx_pager_op_range(file->pager, ZX_PAGER_OP_WRITEBACK_BEGIN, file->vmo, offset, length, 0);
  for (uint64_t done = 0; status == ZX_OK && done < length;) {
    const size_t part = (size_t)least(length - done, CHUNK);
    status = zx_vmo_read(file->vmo, file->buffer, offset + done, part);
    // The last page may be longer than the file.
    const uint64_t left = file->size - least(file->size, offset + done);
    if (status == ZX_OK) status = write_file(file, offset + done, (size_t)least(part, left));
    done += part;
  }
  if (status == ZX_OK && fsync(file->fd) != 0) {
    fprintf(stderr, "file_pager: syncing: %s\n", strerror(errno));
    status = ZX_ERR_IO;
  }
  if (status == ZX_OK) {
    status = zx_pager_op_range(file->pager, ZX_PAGER_OP_WRITEBACK_END, file->vmo, offset, length, 0);
  }
  if (status == ZX_OK) file->pages_written += length / page_size;
  return status;
}

static void write_all_back(struct file* file) {
  const uint64_t size = (file->size + page_size - 1) / page_size * page_size;
  for (uint64_t from = 0; from < size;) {
    zx_vmo_dirty_range_t ranges[16];
    size_t actual = 0;
    const zx_status_t status = zx_pager_query_dirty_ranges(file->pager, file->vmo, from, size - from, ranges,
                                                           sizeof(ranges), &actual, NULL);
    if (status != ZX_OK) {
      complain("asking for dirty pages", status);
      file->failed = true;
      return;
    }
    if (actual == 0) return;
    for (size_t n = 0; n < actual; n++) {
      const zx_status_t written = write_back(file, ranges[n].offset, ranges[n].length);
      if (written != ZX_OK) {
        complain("writing back", written);
        file->failed = true;
        return;
      }
      from = ranges[n].offset + ranges[n].length;
    }
  }
}

static void* serve(void* argument) {
  struct file* file = argument;
  for (;;) {
    zx_port_packet_t packet;
    const zx_status_t status = zx_port_wait(file->port, ZX_TIME_INFINITE, &packet);
    if (status != ZX_OK) {
      complain("waiting at the port", status);
      file->failed = true;
      return NULL;
    }
    if (packet.type != ZX_PKT_TYPE_PAGE_REQUEST) continue;
    switch (packet.page_request.command) {
      case ZX_PAGER_VMO_READ:
        answer_read(file, packet.page_request.offset, packet.page_request.length);
        break;
      case ZX_PAGER_VMO_COMPLETE:  // the last packet
        write_all_back(file);
        return NULL;
      default:
        break;  // ZX_PAGER_VMO_DIRTY: not without ZX_VMO_TRAP_DIRTY
    }
  }
}

static zx_status_t show(const struct file* file, uint64_t offset, uint64_t length) {
  char bytes[4096];
  while (length > 0) {
    const size_t part = (size_t)least(length, sizeof(bytes));
    const zx_status_t status = zx_vmo_read(file->vmo, bytes, offset, part);
    if (status != ZX_OK) return status;
    fwrite(bytes, 1, part, stdout);
    offset += part;
    length -= part;
  }
  return fflush(stdout) == 0 ? ZX_OK : ZX_ERR_IO;
}

static zx_status_t upper(const struct file* file) {
  char bytes[4096];
  for (uint64_t at = 0; at < file->size; at += sizeof(bytes)) {
    const size_t part = (size_t)least(file->size - at, sizeof(bytes));
    zx_status_t status = zx_vmo_read(file->vmo, bytes, at, part);
    if (status != ZX_OK) return status;
    bool changed = false;
    for (size_t n = 0; n < part; n++) {
      const unsigned char byte = (unsigned char)bytes[n];
      if (byte < 128 && islower(byte)) {
        bytes[n] = (char)toupper(byte);
        changed = true;
      }
    }
    // What is not written stays clean, and is not written back.
    if (changed) status = zx_vmo_write(file->vmo, bytes, at, part);
    if (status != ZX_OK) return status;
  }
  return ZX_OK;
}

static bool number(const char* text, uint64_t* value) {
  char* end;
  errno = 0;
  *value = strtoull(text, &end, 0);
  return errno == 0 && *text != '\0' && *text != '-' && *end == '\0';
}

static int usage(void) {
  fprintf(stderr,
          "usage: file_pager FILE show OFFSET LENGTH\n"
          "       file_pager FILE put OFFSET TEXT\n"
          "       file_pager FILE upper\n");
  return 2;
}

int main(int argc, char** argv) {
  uint64_t offset = 0, length = 0;
  enum { SHOW, PUT, UPPER } command;
  if (argc == 5 && strcmp(argv[2], "show") == 0 && number(argv[3], &offset) && number(argv[4], &length)) {
    command = SHOW;
  } else if (argc == 5 && strcmp(argv[2], "put") == 0 && number(argv[3], &offset)) {
    command = PUT;
    length = strlen(argv[4]);
  } else if (argc == 3 && strcmp(argv[2], "upper") == 0) {
    command = UPPER;
  } else {
    return usage();
  }

  page_size = zx_system_get_page_size();
  struct file file = {.fd = open(argv[1], command == SHOW ? O_RDONLY : O_RDWR)};
  struct stat stat;
  if (file.fd < 0 || fstat(file.fd, &stat) != 0) {
    fprintf(stderr, "file_pager: %s: %s\n", argv[1], strerror(errno));
    return 1;
  }
  file.size = (uint64_t)stat.st_size;
  if (offset > file.size || length > file.size - offset) {
    fprintf(stderr, "file_pager: %s has %" PRIu64 " bytes only\n", argv[1], file.size);
    close(file.fd);
    return 1;
  }
  file.buffer = malloc(CHUNK);

  zx_status_t status = file.buffer == NULL ? ZX_ERR_NO_MEMORY : ZX_OK;
  if (status == ZX_OK) status = zx_port_create(0, &file.port);
  if (status == ZX_OK) status = zx_pager_create(0, &file.pager);
  if (status == ZX_OK) status = zx_pager_create_vmo(file.pager, 0, file.port, 1, file.size, &file.vmo);
  if (status == ZX_OK) status = zx_vmo_create(CHUNK, 0, &file.aux);
  if (status == ZX_OK) status = zx_object_set_property(file.vmo, ZX_PROP_NAME, argv[1], strlen(argv[1]));
  pthread_t service;
  if (status == ZX_OK && pthread_create(&service, NULL, serve, &file) != 0) status = ZX_ERR_NO_RESOURCES;
  if (status != ZX_OK) {
    complain("setting up", status);
    file.failed = true;
  } else {
    switch (command) {
      case SHOW:
        status = show(&file, offset, length);
        break;
      case PUT:
        status = zx_vmo_write(file.vmo, argv[4], offset, length);
        break;
      case UPPER:
        status = upper(&file);
        break;
    }
    if (status != ZX_OK) complain(argv[2], status);
    const zx_status_t detached = zx_pager_detach_vmo(file.pager, file.vmo);
    if (detached != ZX_OK) complain("detaching", detached);  // it is our own: this cannot be
    pthread_join(service, NULL);
    fprintf(stderr, "%" PRIu64 " pages read, %" PRIu64 " written back\n", file.pages_read, file.pages_written);
  }

  const zx_handle_t handles[] = {file.vmo, file.aux, file.pager, file.port};
  zx_handle_close_many(handles, sizeof(handles) / sizeof(handles[0]));
  free(file.buffer);
  close(file.fd);
  return status == ZX_OK && !file.failed ? 0 : 1;
}
