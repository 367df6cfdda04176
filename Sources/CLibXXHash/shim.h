#pragma once
#include <stddef.h>
#include <xxhash.h>

/* libxxhash's plain symbols are built for the oldest processor of the architecture; on x86-64 it also
   holds AVX2 and AVX-512 code behind these, chosen when the library is loaded. */
#if defined(__x86_64__)
#define XXH_DISPATCH_DISABLE_REPLACE
#include <xxh_x86dispatch.h>
static inline XXH128_hash_t batchsync_xxh3_128bits(const void *bytes, size_t count) {
    return XXH3_128bits_dispatch(bytes, count);
}
static inline XXH_errorcode batchsync_xxh3_128bits_update(
    XXH3_state_t *state, const void *bytes, size_t count) {
    return XXH3_128bits_update_dispatch(state, bytes, count);
}
#else
static inline XXH128_hash_t batchsync_xxh3_128bits(const void *bytes, size_t count) {
    return XXH3_128bits(bytes, count);
}
static inline XXH_errorcode batchsync_xxh3_128bits_update(
    XXH3_state_t *state, const void *bytes, size_t count) {
    return XXH3_128bits_update(state, bytes, count);
}
#endif
