// Shared by the kernels: CPU features and conversions.

#pragma once
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

// PLATO_PLAIN disables the code for particular CPUs, PLATO_NO_TILES only the tile registers: tests
// compare the results.
#if !defined(PLATO_PLAIN)
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WIDE 1
#endif
#if defined(WIDE) && defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(__linux__) && \
    !defined(PLATO_NO_TILES)
#define TILES 1
#endif
#endif

static inline float from_bfloat16(uint16_t value) {
  uint32_t bits = (uint32_t)value << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

// Rounds to nearest, ties to even, as torch does; NaN does not occur here.
static inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// exp by 2^n * p(r), the polynomial of Cephes' expf; relative error below 2e-7. Without branches
// or calls, so that loops around it are vectorised.
static inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float n = rintf(x * 1.44269504f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)n + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}
