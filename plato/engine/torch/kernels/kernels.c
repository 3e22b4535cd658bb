// The parts of a decoder layer for a few rows at a time: its matrix products with weights of a byte,
// and what lies between them.
//
// Plain C that a compiler vectorises for the machine it runs on (-O3 -march=native). Every output
// row depends on its own input row alone, and sums are taken in the same order whatever else is in
// the batch: a sequence gets the same bits alone and in company.
//
// All activations are float32, row-major and contiguous. KV is float32 or bfloat16.

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__) && !defined(PLATO_PLAIN)
#include <immintrin.h>
#endif

#define MAX_DIM 256
#define MAX_TILE 16
#define BLOCK 64
// Below this many elements a second thread costs more than it brings.
#define PARALLEL 16384
// Of an int8 product: outputs of one tile, rows whose sums fit the registers together, rows that
// one pass over the weights serves, inputs whose products sum up in 32 bits.
#define OUTPUTS 16
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && !defined(PLATO_PLAIN)
#define WIDE 1
#define ROW_GROUP 12
#else
#define ROW_GROUP 4
#endif
#define ROW_BLOCK 96
#define DEPTH 512

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

// exp by 2^n * p(r), the polynomial of Cephes' expf; relative error below 2e-7. Free of branches
// and of calls, so that loops around it become vector code everywhere.
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

// out = x / sqrt(mean(x^2) + eps) * weight, row by row (arXiv 1910.07467).
void plato_rms_norm(const float *x, const float *weight, float eps, int64_t rows, int64_t columns,
                    float *out) {
#pragma omp parallel for if (rows * columns > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const float *from = x + r * columns;
    float *to = out + r * columns;
    float sum = 0;
    for (int64_t c = 0; c < columns; c++) sum += from[c] * from[c];
    float factor = 1.0f / sqrtf(sum / (float)columns + eps);
    for (int64_t c = 0; c < columns; c++) to[c] = from[c] * factor * weight[c];
  }
}

// Adds the products of `pairs` pairs of inputs to `sums` for `count` rows and the OUTPUTS outputs of
// a tile. Integer sums are exact, in any order: |x| <= 32767 and |weight| <= 127, so DEPTH of them
// fit 32 bits. `count` is a constant where this is called, so that the sums stay in registers.
#if defined(WIDE)
static inline __attribute__((always_inline)) void multiply(const int16_t *x, int64_t stride,
                                                           const int8_t *weight, int64_t pairs,
                                                           int count, float (*sums)[OUTPUTS]) {
  __m512i totals[ROW_GROUP];
  for (int r = 0; r < count; r++) totals[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int64_t p = 0; p < pairs; p++) {
    const __m256i *from = (const __m256i *)(weight + p * 2 * OUTPUTS);
    __m512i pairs_of_weights = _mm512_cvtepi8_epi16(_mm256_loadu_si256(from));
    for (int r = 0; r < count; r++) {
      int32_t pair;
      memcpy(&pair, x + r * stride + 2 * p, sizeof pair);
      totals[r] = _mm512_dpwssd_epi32(totals[r], pairs_of_weights, _mm512_set1_epi32(pair));
    }
  }
  for (int r = 0; r < count; r++) {
    __m512 known = _mm512_loadu_ps(sums[r]);
    _mm512_storeu_ps(sums[r], _mm512_add_ps(known, _mm512_cvtepi32_ps(totals[r])));
  }
}
#elif defined(__AVX2__) && !defined(PLATO_PLAIN)
static inline __m256i multiply_add(__m256i sum, __m256i a, __m256i b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpwssd_epi32(sum, a, b);
#elif defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

static inline __attribute__((always_inline)) void multiply(const int16_t *x, int64_t stride,
                                                           const int8_t *weight, int64_t pairs,
                                                           int count, float (*sums)[OUTPUTS]) {
  __m256i low[ROW_GROUP], high[ROW_GROUP];
  for (int r = 0; r < count; r++) low[r] = high[r] = _mm256_setzero_si256();
  // Without this, gcc copies every sum in every round, which takes a third of the time.
#pragma GCC unroll 4
  for (int64_t p = 0; p < pairs; p++) {
    const __m128i *from = (const __m128i *)(weight + p * 2 * OUTPUTS);
    __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(from));
    __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1));
    for (int r = 0; r < count; r++) {
      int32_t pair;
      memcpy(&pair, x + r * stride + 2 * p, sizeof pair);
      __m256i both = _mm256_set1_epi32(pair);
      low[r] = multiply_add(low[r], first, both);
      high[r] = multiply_add(high[r], second, both);
    }
  }
  for (int r = 0; r < count; r++) {
    __m256 left = _mm256_loadu_ps(sums[r]), right = _mm256_loadu_ps(sums[r] + 8);
    _mm256_storeu_ps(sums[r], _mm256_add_ps(left, _mm256_cvtepi32_ps(low[r])));
    _mm256_storeu_ps(sums[r] + 8, _mm256_add_ps(right, _mm256_cvtepi32_ps(high[r])));
  }
}
#else
static inline __attribute__((always_inline)) void multiply(const int16_t *x, int64_t stride,
                                                           const int8_t *weight, int64_t pairs,
                                                           int count, float (*sums)[OUTPUTS]) {
  int32_t totals[ROW_GROUP][OUTPUTS] = {0};
  for (int64_t p = 0; p < pairs; p++)
    for (int r = 0; r < count; r++) {
      int32_t first = x[r * stride + 2 * p], second = x[r * stride + 2 * p + 1];
      for (int o = 0; o < OUTPUTS; o++)
        totals[r][o] += first * weight[2 * (p * OUTPUTS + o)] +
                        second * weight[2 * (p * OUTPUTS + o) + 1];
    }
  for (int r = 0; r < count; r++)
    for (int o = 0; o < OUTPUTS; o++) sums[r][o] += (float)totals[r][o];
}
#endif

// A linear layer with weights of a byte and inputs of two: out = x @ weight.T + bias.
//
// Each row of `x` [rows, columns] is rounded to 16 bits with a scale of its own, so that what is
// lost is the rounding of the weights. `weight` is packed as [tiles, pairs, OUTPUTS, 2]: what one
// task reads lies in one piece. `rounded` [rows, 2 * pairs] and `scales` [rows] are scratch.
void plato_linear(const float *x, const int8_t *weight, const float *weight_scales,
                  const float *bias, int64_t rows, int64_t columns, int64_t outputs,
                  int16_t *rounded, float *scales, float *out) {
  int64_t pairs = (columns + 1) / 2, stride = 2 * pairs, tiles = (outputs + OUTPUTS - 1) / OUTPUTS;
  int64_t pieces = (stride + DEPTH - 1) / DEPTH, piece = (pairs + pieces - 1) / pieces;
#pragma omp parallel
  {
#pragma omp for
    for (int64_t r = 0; r < rows; r++) {
      const float *from = x + r * columns;
      int16_t *to = rounded + r * stride;
      float largest = 0;
      for (int64_t c = 0; c < columns; c++) {
        float size = fabsf(from[c]);
        largest = size > largest ? size : largest;
      }
      float inverse = largest > 0 ? 32767.0f / largest : 0;
      scales[r] = largest / 32767.0f;
      for (int64_t c = 0; c < columns; c++) to[c] = (int16_t)(int32_t)rintf(from[c] * inverse);
      if (stride > columns) to[columns] = 0;
    }
    // Rows that stay in the second-level cache while all tiles pass over them.
    for (int64_t begin = 0; begin < rows; begin += ROW_BLOCK) {
      int64_t count = rows - begin < ROW_BLOCK ? rows - begin : ROW_BLOCK;
      int64_t groups = (count + ROW_GROUP - 1) / ROW_GROUP;
#pragma omp for nowait
      for (int64_t tile = 0; tile < tiles; tile++) {
        float sums[ROW_BLOCK][OUTPUTS];
        memset(sums, 0, count * sizeof sums[0]);
        for (int64_t p = 0; p < pairs; p += piece) {
          int64_t length = pairs - p < piece ? pairs - p : piece;
          const int8_t *from = weight + (tile * pairs + p) * 2 * OUTPUTS;
          for (int64_t g = 0; g < groups; g++) {
            int64_t first = g * count / groups, next = (g + 1) * count / groups;
            const int16_t *at = rounded + (begin + first) * stride + 2 * p;
#define MULTIPLY(COUNT) \
  case COUNT:           \
    multiply(at, stride, from, length, COUNT, sums + first); \
    break;
            switch (next - first) {
              MULTIPLY(1)
              MULTIPLY(2)
              MULTIPLY(3)
              MULTIPLY(4)
#if ROW_GROUP > 4
              MULTIPLY(5)
              MULTIPLY(6)
              MULTIPLY(7)
              MULTIPLY(8)
              MULTIPLY(9)
              MULTIPLY(10)
              MULTIPLY(11)
              MULTIPLY(12)
#endif
            }
#undef MULTIPLY
          }
        }
        int64_t start = tile * OUTPUTS;
        int64_t width = outputs - start < OUTPUTS ? outputs - start : OUTPUTS;
        for (int64_t r = 0; r < count; r++) {
          float *to = out + (begin + r) * outputs + start, scale = scales[begin + r];
          for (int64_t o = 0; o < width; o++) to[o] = sums[r][o] * scale * weight_scales[start + o];
          if (bias)
            for (int64_t o = 0; o < width; o++) to[o] += bias[start + o];
        }
      }
    }
  }
}

// out = silu(gate) * up (arXiv 2002.05202); `both` is [rows, 2, columns]: gate, then up.
void plato_swiglu(const float *both, int64_t rows, int64_t columns, float *out) {
#pragma omp parallel for if (rows * columns > PARALLEL / 2)
  for (int64_t r = 0; r < rows; r++) {
    const float *gate = both + 2 * r * columns, *up = gate + columns;
    float *to = out + r * columns;
    for (int64_t c = 0; c < columns; c++)
      to[c] = gate[c] / (1.0f + fast_exp(-gate[c])) * up[c];
  }
}

static inline void rotate(float *x, const float *cosine, const float *sine, int64_t dim) {
  int64_t half = dim / 2;
  for (int64_t d = 0; d < half; d++) {
    float first = x[d], second = x[half + d];
    x[d] = first * cosine[d] - second * sine[d];
    x[half + d] = second * cosine[half + d] + first * sine[half + d];
  }
}

// Rotates the queries and keys of `qkv` [rows, heads + 2 * kv_heads, dim] in place (rotary
// position embedding in halves, arXiv 2104.09864) and writes keys and values to their slots.
void plato_rotate_and_store(float *qkv, const float *cosine, const float *sine,
                            const int64_t *slots, int64_t rows, int64_t heads, int64_t kv_heads,
                            int64_t dim, int bfloat16, void *keys, void *values) {
  int64_t width = (heads + 2 * kv_heads) * dim, kept = kv_heads * dim;
#pragma omp parallel for if (rows * width > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    float *row = qkv + r * width;
    for (int64_t h = 0; h < heads + kv_heads; h++)
      rotate(row + h * dim, cosine + r * dim, sine + r * dim, dim);
    const float *key = row + heads * dim, *value = key + kept;
    int64_t at = slots[r] * kept;
    if (bfloat16) {
      uint16_t *k = (uint16_t *)keys + at, *v = (uint16_t *)values + at;
      for (int64_t i = 0; i < kept; i++) k[i] = to_bfloat16(key[i]);
      for (int64_t i = 0; i < kept; i++) v[i] = to_bfloat16(value[i]);
    } else {
      memcpy((float *)keys + at, key, kept * sizeof(float));
      memcpy((float *)values + at, value, kept * sizeof(float));
    }
  }
}

// The query heads of one KV head, for a few consecutive positions of one sequence: softmax in one
// pass with a running maximum (arXiv 1805.02867), a block of positions at a time. Blocks begin at
// fixed positions, and each query keeps sums of its own, so the tile it is in changes no bit.
// Query i looks at the first `lengths[i]` slots; lengths do not fall. `dim` and `bfloat16` are
// constants where this is called, so that the loops over them are unrolled.
static inline __attribute__((always_inline)) void attend_tile(
    const float (*queries)[MAX_DIM], const void *keys, const void *values, const int64_t *slots,
    const int64_t *lengths, int64_t stride, int64_t count, int64_t dim, int bfloat16, float scaling,
    float (*out)[MAX_DIM]) {
  float sum[MAX_TILE], top[MAX_TILE], scores[MAX_TILE][BLOCK], row[MAX_DIM];
  for (int64_t i = 0; i < count; i++) {
    sum[i] = 0;
    top[i] = -INFINITY;
    for (int64_t d = 0; d < dim; d++) out[i][d] = 0;
  }
  int64_t longest = lengths[count - 1];
  for (int64_t start = 0; start < longest; start += BLOCK) {
    int64_t end = longest - start < BLOCK ? longest : start + BLOCK, first = 0;
    for (int64_t t = start; t < end; t++) {
      while (lengths[first] <= t) first++;
      const float *key = (const float *)keys + slots[t] * stride;
      if (bfloat16) {
        const uint16_t *packed = (const uint16_t *)keys + slots[t] * stride;
        for (int64_t d = 0; d < dim; d++) row[d] = from_bfloat16(packed[d]);
        key = row;
      }
      for (int64_t i = first; i < count; i++) {
        float dot = 0;
        for (int64_t d = 0; d < dim; d++) dot += queries[i][d] * key[d];
        scores[i][t - start] = dot * scaling;
      }
    }
    for (int64_t i = 0; i < count; i++) {
      int64_t seen = lengths[i] < end ? lengths[i] - start : end - start;
      if (seen <= 0) continue;
      float highest = top[i], total = 0;
      for (int64_t t = 0; t < seen; t++)
        highest = scores[i][t] > highest ? scores[i][t] : highest;
      for (int64_t t = 0; t < seen; t++) scores[i][t] = fast_exp(scores[i][t] - highest);
      for (int64_t t = 0; t < seen; t++) total += scores[i][t];
      if (start) {
        float shrink = fast_exp(top[i] - highest);
        sum[i] = sum[i] * shrink + total;
        for (int64_t d = 0; d < dim; d++) out[i][d] *= shrink;
      } else {
        sum[i] = total;
      }
      top[i] = highest;
    }
    first = 0;
    for (int64_t t = start; t < end; t++) {
      while (lengths[first] <= t) first++;
      const float *value = (const float *)values + slots[t] * stride;
      if (bfloat16) {
        const uint16_t *packed = (const uint16_t *)values + slots[t] * stride;
        for (int64_t d = 0; d < dim; d++) row[d] = from_bfloat16(packed[d]);
        value = row;
      }
      for (int64_t i = first; i < count; i++)
        for (int64_t d = 0; d < dim; d++) out[i][d] += scores[i][t - start] * value[d];
    }
  }
  for (int64_t i = 0; i < count; i++)
    for (int64_t d = 0; d < dim; d++) out[i][d] /= sum[i];
}

// Attention of one query a row, each over its own sequence up to its own position. The query of
// row r lies at `queries + r * query_stride` [heads, dim]; it looks at the `lengths[r]` slots that
// start at `slots + offsets[r]`. `tiles` [tile_count + 1] cuts the rows into runs of neighbours in
// one sequence, `heads / kv_heads` times which is at most MAX_TILE. `out` is [rows, heads, dim].
void plato_attend(const float *queries, int64_t query_stride, const void *keys, const void *values,
                  int bfloat16, const int64_t *slots, const int64_t *offsets,
                  const int64_t *lengths, const int64_t *tiles, int64_t tile_count, int64_t heads,
                  int64_t kv_heads, int64_t dim, float scaling, float *out) {
  int64_t group = heads / kv_heads, stride = kv_heads * dim, size = bfloat16 ? 2 : 4;
#pragma omp parallel for schedule(dynamic)
  for (int64_t task = 0; task < tile_count * kv_heads; task++) {
    int64_t tile = task / kv_heads, head = task % kv_heads;
    int64_t begin = tiles[tile], count = 0;
    float local[MAX_TILE][MAX_DIM], result[MAX_TILE][MAX_DIM];
    int64_t seen[MAX_TILE];
    for (int64_t r = begin; r < tiles[tile + 1]; r++)
      for (int64_t g = 0; g < group; g++, count++) {
        memcpy(local[count], queries + r * query_stride + (head * group + g) * dim,
               dim * sizeof(float));
        seen[count] = lengths[r];
      }
    const char *k = (const char *)keys + head * dim * size;
    const char *v = (const char *)values + head * dim * size;
    const int64_t *path = slots + offsets[begin];
#define ATTEND(DIM, BF16) \
  attend_tile(local, k, v, path, seen, stride, count, DIM, BF16, scaling, result)
    if (dim == 64 && bfloat16) ATTEND(64, 1);
    else if (dim == 64) ATTEND(64, 0);
    else if (dim == 128 && bfloat16) ATTEND(128, 1);
    else if (dim == 128) ATTEND(128, 0);
    else if (bfloat16) ATTEND(dim, 1);
    else ATTEND(dim, 0);
#undef ATTEND
    count = 0;
    for (int64_t r = begin; r < tiles[tile + 1]; r++)
      for (int64_t g = 0; g < group; g++, count++)
        memcpy(out + (r * heads + head * group + g) * dim, result[count], dim * sizeof(float));
  }
}
