// The memory-hard part of scrypt (RFC 7914), for one block size. It is C because it lives on
// vector registers, and what Swift makes of its SIMD types is three times slower.

#define _GNU_SOURCE
#include "CScrypt.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

// A row of four words, as one vector register holds it.
typedef uint32_t row __attribute__((vector_size(16)));
// 64 bytes, the unit of Salsa20/8. The rows hold the diagonals of the square that the RFC describes,
// so that a column round is four operations on whole rows.
typedef struct {
    row rows[4];
} square;

// 2r squares of 64 bytes.
enum { BLOCK_SIZE = 8, SQUARES = 2 * BLOCK_SIZE };
typedef struct {
    square squares[SQUARES];
} block;

// One block in so many is kept, and those between are computed again from the last that was kept.
// Keeping every third one takes a third of the memory for a seventh more time, which huge pages,
// with their fewer faults, win back.
enum { KEPT_ONE_IN = 3 };

#define INLINE static inline __attribute__((always_inline))

INLINE row rotated(row value, int bits) { return value << bits | value >> (32 - bits); }

INLINE square mixed(square left, square right) {
    for (int i = 0; i < 4; i++) left.rows[i] ^= right.rows[i];
    return left;
}

// The rows of the square after a column round are its columns after the next one turns them, which
// is what the shuffles do.
INLINE square salsa20_8(square in) {
    row a = in.rows[0], b = in.rows[1], c = in.rows[2], d = in.rows[3];
    for (int round = 0; round < 8; round += 2) {
        b ^= rotated(a + d, 7);
        c ^= rotated(b + a, 9);
        d ^= rotated(c + b, 13);
        a ^= rotated(d + c, 18);
        b = __builtin_shufflevector(b, b, 3, 0, 1, 2);
        c = __builtin_shufflevector(c, c, 2, 3, 0, 1);
        d = __builtin_shufflevector(d, d, 1, 2, 3, 0);
        d ^= rotated(a + b, 7);
        c ^= rotated(d + a, 9);
        b ^= rotated(c + d, 13);
        a ^= rotated(b + c, 18);
        b = __builtin_shufflevector(b, b, 1, 2, 3, 0);
        c = __builtin_shufflevector(c, c, 2, 3, 0, 1);
        d = __builtin_shufflevector(d, d, 3, 0, 1, 2);
    }
    return (square){{in.rows[0] + a, in.rows[1] + b, in.rows[2] + c, in.rows[3] + d}};
}

// scryptBlockMix: even squares of the outcome come first, odd ones behind.
INLINE void block_mix(const block *in, block *out) {
    square x = in->squares[SQUARES - 1];
    for (int i = 0; i < SQUARES; i++) {
        x = salsa20_8(mixed(x, in->squares[i]));
        out->squares[i / 2 + i % 2 * BLOCK_SIZE] = x;
    }
}

// scryptBlockMix of the exclusive or of two blocks.
INLINE void block_mix_of_both(const block *in, const block *other, block *out) {
    square x = mixed(in->squares[SQUARES - 1], other->squares[SQUARES - 1]);
    for (int i = 0; i < SQUARES; i++) {
        x = salsa20_8(mixed(x, mixed(in->squares[i], other->squares[i])));
        out->squares[i / 2 + i % 2 * BLOCK_SIZE] = x;
    }
}

// What decides which block comes next: the first eight bytes of the last square, little endian.
INLINE uint64_t integerified(const block *x) {
    const square *last = &x->squares[SQUARES - 1];
    // The second word of the square is the second of the last diagonal.
    return last->rows[0][0] | (uint64_t)last->rows[3][1] << 32;
}

INLINE void romix(block *start, block *kept, uint64_t cost) {
    block buffers[4];
    block *x = &buffers[0], *next = &buffers[1];
    *x = *start;
    for (uint64_t i = 0; i < cost; i++) {
        if (i % KEPT_ONE_IN == 0) kept[i / KEPT_ONE_IN] = *x;
        block_mix(x, next);
        block *old = x;
        x = next;
        next = old;
    }
    for (uint64_t i = 0; i < cost; i++) {
        uint64_t wanted = integerified(x) & (cost - 1);
        const block *found = &kept[wanted / KEPT_ONE_IN];
        for (uint64_t missing = wanted % KEPT_ONE_IN; missing > 0; missing--) {
            block *computed = found == &buffers[2] ? &buffers[3] : &buffers[2];
            block_mix(found, computed);
            found = computed;
        }
        block_mix_of_both(x, found, next);
        block *old = x;
        x = next;
        next = old;
    }
    *start = *x;
    explicit_bzero(buffers, sizeof buffers);
}

static void romix_anywhere(block *start, block *kept, uint64_t cost) { romix(start, kept, cost); }

#if defined(__x86_64__)
// The same with rotations of one instruction: a quarter faster.
__attribute__((target("avx512f,avx512vl"))) static void romix_avx512(
    block *start, block *kept, uint64_t cost) {
    romix(start, kept, cost);
}
#endif

// Lane `at` of a square, counted over its rows, holds this word of the RFC's order.
INLINE int word_at(int at) { return at * 5 % 16; }

static void load(const uint8_t *bytes, block *out) {
    for (int i = 0; i < SQUARES; i++) {
        for (int at = 0; at < 16; at++) {
            const uint8_t *word = bytes + i * 64 + word_at(at) * 4;
            out->squares[i].rows[at / 4][at % 4] = word[0] | (uint32_t)word[1] << 8
                | (uint32_t)word[2] << 16 | (uint32_t)word[3] << 24;
        }
    }
}

static void store(const block *in, uint8_t *bytes) {
    for (int i = 0; i < SQUARES; i++) {
        for (int at = 0; at < 16; at++) {
            uint8_t *word = bytes + i * 64 + word_at(at) * 4;
            uint32_t value = in->squares[i].rows[at / 4][at % 4];
            for (int byte = 0; byte < 4; byte++) word[byte] = (uint8_t)(value >> byte * 8);
        }
    }
}

int cscrypt_romix(uint8_t *bytes, uint64_t cost) {
    size_t size = (size_t)((cost + KEPT_ONE_IN - 1) / KEPT_ONE_IN) * sizeof(block);
    block *kept = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (kept == MAP_FAILED) return -errno;
    madvise(kept, size, MADV_HUGEPAGE);
    block mixing;
    load(bytes, &mixing);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        romix_avx512(&mixing, kept, cost);
    } else {
        romix_anywhere(&mixing, kept, cost);
    }
#else
    romix_anywhere(&mixing, kept, cost);
#endif
    store(&mixing, bytes);
    explicit_bzero(&mixing, sizeof mixing);
    munmap(kept, size);
    return 0;
}
