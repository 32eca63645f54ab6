// Reads and writes of a pager's VMO: what is asked for, who waits, and what comes back.

#include "world.h"

using namespace conformance;

CASE(read, of_a_page_that_is_there_needs_no_packet) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_EQ(read_pages(vmo, 0), content(0));
  world.expect_nothing();
}

CASE(read, of_an_absent_page_asks_for_it_and_waits) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later reader = read_pages_later(vmo, 1);
  world.expect_read(1);
  CHECK(reader.waits());
  world.supply(vmo, 1, 1);
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), content(1));
}

CASE(read, of_a_part_of_a_page_asks_for_the_whole_page) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later reader = read_later(vmo, kPage + 100, 7);
  world.expect_read(1);
  world.supply(vmo, 1, 1);
  const Bytes page = content(1);
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), Bytes(page.begin() + 100, page.begin() + 107));
}

CASE(read, across_pages_asks_for_the_run_in_one_packet) {
  const World world;
  const Handle vmo = world.vmo(8);
  Later reader = read_later(vmo, 2 * kPage + 5, 3 * kPage);
  world.expect_read(2, 4);
  world.expect_nothing();
  world.supply(vmo, 2, 4);
  CHECK_OK(reader.status());
  const Bytes all = content(2, 4);
  CHECK_EQ(reader.bytes(), Bytes(all.begin() + 5, all.begin() + 5 + 3 * kPage));
}

CASE(read, asks_only_for_what_is_absent) {
  const World world;
  const Handle vmo = world.vmo(3);
  world.supply(vmo, 1, 1);
  Later reader = read_pages_later(vmo, 0, 3);
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  world.expect_read(2);
  world.supply(vmo, 2, 1);
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), content(0, 3));
}

CASE(read, of_a_page_in_flight_joins_without_a_packet) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later first = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later second = read_pages_later(vmo, 0);
  CHECK(second.waits());
  world.expect_nothing();
  world.supply(vmo, 0, 1);
  CHECK_OK(first.status());
  CHECK_OK(second.status());
  CHECK_EQ(second.bytes(), content(0));
  world.expect_nothing();
}

CASE(read, over_a_page_in_flight_waits_for_it_and_goes_on) {
  const World world;
  const Handle vmo = world.vmo(3);
  Later middle = read_pages_later(vmo, 1);
  world.expect_read(1);
  Later all = read_pages_later(vmo, 0, 3);
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  CHECK(all.waits());
  world.supply(vmo, 1, 1);
  world.expect_read(2);
  world.supply(vmo, 2, 1);
  CHECK_OK(middle.status());
  CHECK_OK(all.status());
  CHECK_EQ(all.bytes(), content(0, 3));
}

CASE(read, past_the_end_is_out_of_range_and_asks_for_nothing) {
  const World world;
  const Handle vmo = world.vmo(2);
  CHECK_STATUS(read_status(vmo, 2 * kPage, 1), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(read_status(vmo, kPage, kPage + 1), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(read_status(vmo, UINT64_MAX, 2), ZX_ERR_OUT_OF_RANGE);
  world.expect_nothing();
}

CASE(read, of_nothing_is_no_error_up_to_the_end) {
  const World world;
  const Handle vmo = world.vmo(2);
  CHECK_OK(read_status(vmo, 0, 0));
  CHECK_OK(read_status(vmo, 2 * kPage, 0));
  CHECK_OK(write_status(vmo, kPage, 0));
  world.expect_nothing();
}

CASE(read, that_fails_leaves_the_rest_of_the_buffer_alone) {
  const World world;
  const Handle vmo = world.full(1);
  Bytes bytes(kPage + 1, 0x5a);
  CHECK_STATUS(zx_vmo_read(vmo.get(), bytes.data(), 0, bytes.size()), ZX_ERR_OUT_OF_RANGE);
  CHECK_EQ(bytes, Bytes(kPage + 1, 0x5a));
}

CASE(read, write_to_an_absent_page_reads_it_first) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later writer = write_later(vmo, 10, Bytes(3, 0xaa));
  world.expect_read(0);
  CHECK(writer.waits());
  world.supply(vmo, 0, 1);
  CHECK_OK(writer.status());
  Bytes page = content(0);
  std::fill(page.begin() + 10, page.begin() + 13, uint8_t{0xaa});
  CHECK_EQ(read_pages(vmo, 0), page);
}

CASE(read, write_joins_a_read_in_flight) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  CHECK(writer.waits());
  world.expect_nothing();
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
  CHECK_OK(writer.status());
}

CASE(read, write_that_fails_has_written_a_prefix) {
  const World world;
  const Handle vmo = world.vmo(2);
  world.supply(vmo, 0, 1);
  Later writer = write_later(vmo, 0, Bytes(2 * kPage, 0xaa));
  world.expect_read(1);
  CHECK_OK(world.fail(vmo, 1, 1, ZX_ERR_IO));
  CHECK_STATUS(writer.status(), ZX_ERR_IO);
  CHECK_EQ(read_pages(vmo, 0), Bytes(kPage, 0xaa));
  CHECK_EQ(committed_pages(vmo), 1u);
}

CASE(read, write_past_the_end_writes_nothing) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_STATUS(write_status(vmo, 1, kPage), ZX_ERR_OUT_OF_RANGE);
  CHECK_EQ(read_pages(vmo, 0), content(0));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(read, packets_of_vmos_are_told_apart_by_key) {
  const World world;
  const Handle one = world.vmo(1, 0, 1), two = world.vmo(1, 0, UINT64_MAX);
  Later first = read_pages_later(one, 0);
  world.expect_read(0, 1, 1);
  Later second = read_pages_later(two, 0);
  world.expect_read(0, 1, UINT64_MAX);
  world.supply(two, 0, 1, 2);
  CHECK_OK(second.status());
  CHECK_EQ(second.bytes(), content(0, 1, 2));
  CHECK(first.waits());
  world.supply(one, 0, 1, 1);
  CHECK_OK(first.status());
  CHECK_EQ(first.bytes(), content(0, 1, 1));
}

CASE(read, reserved_fields_of_a_packet_are_zero) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  const zx_port_packet_t packet = world.next();
  CHECK_EQ(packet.page_request.flags, 0u);
  CHECK_EQ(packet.page_request.reserved0, 0u);
  CHECK_EQ(packet.page_request.reserved1, 0u);
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}

CASE(read, size_is_rounded_up_to_pages) {
  const World world;
  Handle vmo;
  CHECK_OK(zx_pager_create_vmo(world.pager.get(), 0, world.port.get(), kKey, kPage + 1, vmo.out()));
  CHECK_EQ(size_of(vmo), 2 * kPage);
  CHECK_EQ(info_of(vmo).size_bytes, 2 * kPage);
}

CASE(read, of_an_empty_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(0);
  CHECK_EQ(size_of(vmo), 0u);
  CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_OUT_OF_RANGE);
}

CASE(read, anonymous_vmo_is_zeros_until_it_is_written) {
  const Handle vmo = anonymous(2);
  CHECK_EQ(read_pages(vmo, 0, 2), zeros(2));
  CHECK_EQ(committed_pages(vmo), 0u);
  write(vmo, kPage, content(1));
  CHECK_EQ(read_pages(vmo, 0, 2), joined(zeros(1), content(1)));
  CHECK_EQ(committed_pages(vmo), 1u);
  CHECK_STATUS(read_status(vmo, kPage, kPage + 1), ZX_ERR_OUT_OF_RANGE);
}
