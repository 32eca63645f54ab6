/* Where fields lie, and numbers, in C and in C++: those of Zircon's public documentation. */

#ifndef UPAGER_TESTS_CAPI_LAYOUT_H_
#define UPAGER_TESTS_CAPI_LAYOUT_H_

#include <upager.h>

#ifdef __cplusplus
#define LAYOUT(condition) static_assert(condition, #condition)
#else
#define LAYOUT(condition) _Static_assert(condition, #condition)
#endif

LAYOUT(sizeof(zx_handle_t) == 4 && sizeof(zx_status_t) == 4 && sizeof(zx_time_t) == 8 && sizeof(zx_koid_t) == 8);
LAYOUT(sizeof(zx_rights_t) == 4 && sizeof(zx_obj_type_t) == 4);

LAYOUT(sizeof(zx_port_packet_t) == 48);
LAYOUT(offsetof(zx_port_packet_t, key) == 0);
LAYOUT(offsetof(zx_port_packet_t, type) == 8);
LAYOUT(offsetof(zx_port_packet_t, status) == 12);
LAYOUT(offsetof(zx_port_packet_t, user) == 16);
LAYOUT(offsetof(zx_port_packet_t, page_request) == 16);
LAYOUT(sizeof(zx_packet_page_request_t) == 32);
LAYOUT(offsetof(zx_packet_page_request_t, command) == 0);
LAYOUT(offsetof(zx_packet_page_request_t, flags) == 2);
LAYOUT(offsetof(zx_packet_page_request_t, reserved0) == 4);
LAYOUT(offsetof(zx_packet_page_request_t, offset) == 8);
LAYOUT(offsetof(zx_packet_page_request_t, length) == 16);
LAYOUT(offsetof(zx_packet_page_request_t, reserved1) == 24);

LAYOUT(sizeof(zx_vmo_dirty_range_t) == 24);
LAYOUT(offsetof(zx_vmo_dirty_range_t, offset) == 0);
LAYOUT(offsetof(zx_vmo_dirty_range_t, length) == 8);
LAYOUT(offsetof(zx_vmo_dirty_range_t, options) == 16);
LAYOUT(sizeof(zx_pager_vmo_stats_t) == 4);

LAYOUT(sizeof(zx_info_handle_basic_t) == 32);
LAYOUT(offsetof(zx_info_handle_basic_t, koid) == 0);
LAYOUT(offsetof(zx_info_handle_basic_t, rights) == 8);
LAYOUT(offsetof(zx_info_handle_basic_t, type) == 12);
LAYOUT(offsetof(zx_info_handle_basic_t, related_koid) == 16);
LAYOUT(offsetof(zx_info_handle_basic_t, reserved) == 24);

LAYOUT(sizeof(zx_info_vmo_t) == 176);
LAYOUT(offsetof(zx_info_vmo_t, koid) == 0);
LAYOUT(offsetof(zx_info_vmo_t, name) == 8);
LAYOUT(offsetof(zx_info_vmo_t, size_bytes) == 40);
LAYOUT(offsetof(zx_info_vmo_t, parent_koid) == 48);
LAYOUT(offsetof(zx_info_vmo_t, num_children) == 56);
LAYOUT(offsetof(zx_info_vmo_t, num_mappings) == 64);
LAYOUT(offsetof(zx_info_vmo_t, share_count) == 72);
LAYOUT(offsetof(zx_info_vmo_t, flags) == 80);
LAYOUT(offsetof(zx_info_vmo_t, committed_bytes) == 88);
LAYOUT(offsetof(zx_info_vmo_t, handle_rights) == 96);
LAYOUT(offsetof(zx_info_vmo_t, cache_policy) == 100);
LAYOUT(offsetof(zx_info_vmo_t, metadata_bytes) == 104);
LAYOUT(offsetof(zx_info_vmo_t, committed_change_events) == 112);
LAYOUT(offsetof(zx_info_vmo_t, populated_bytes) == 120);
LAYOUT(offsetof(zx_info_vmo_t, committed_private_bytes) == 128);
LAYOUT(offsetof(zx_info_vmo_t, populated_private_bytes) == 136);
LAYOUT(offsetof(zx_info_vmo_t, committed_scaled_bytes) == 144);
LAYOUT(offsetof(zx_info_vmo_t, populated_scaled_bytes) == 152);
LAYOUT(offsetof(zx_info_vmo_t, committed_fractional_scaled_bytes) == 160);
LAYOUT(offsetof(zx_info_vmo_t, populated_fractional_scaled_bytes) == 168);

#endif /* UPAGER_TESTS_CAPI_LAYOUT_H_ */
