#pragma once

#include <stdint.h>

/// scryptROMix of RFC 7914 section 5 with block size r = 8, as age uses it: mixes the 1024 bytes at
/// `block` in place. `cost` is N, a power of two from 2 to 2^40.
///
/// Memory: 1024 bytes for every third of the N steps, given back before it returns.
///
/// Returns 0, or the negated errno where the memory is not to be had; `block` is as it was then.
int cscrypt_romix(uint8_t *block, uint64_t cost);
