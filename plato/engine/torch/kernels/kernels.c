// What lies between the matrix products of a decoder layer, for a few rows at a time.
//
// Plain C that a compiler vectorises for the machine it runs on (-O3 -march=native). Every output
// row depends on its own input row alone, and sums are taken in the same order whatever else is in
// the batch: a sequence gets the same bits alone and in company.
//
// All activations are float32, row-major and contiguous. KV is float32 or bfloat16.

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_DIM 256
#define MAX_TILE 16
#define BLOCK 64
// Below this many elements a second thread costs more than it brings.
#define PARALLEL 16384

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

// Two planes of unsigned bytes with offset 128, and one scale a row:
// x = scale * ((high - 128) + (low - 128) / 254). `planes` is [2, rows, columns].
void plato_quantize(const float *x, int64_t rows, int64_t columns, uint8_t *planes,
                    float *scales) {
#pragma omp parallel for if (rows * columns > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const float *from = x + r * columns;
    uint8_t *high = planes + r * columns, *low = planes + (rows + r) * columns;
    float largest = 0;
    for (int64_t c = 0; c < columns; c++) {
      float size = fabsf(from[c]);
      largest = size > largest ? size : largest;
    }
    float inverse = largest > 0 ? 127.0f / largest : 0;
    scales[r] = largest / 127.0f;
    for (int64_t c = 0; c < columns; c++) {
      float value = from[c] * inverse;
      float whole = rintf(value);
      high[c] = (uint8_t)(int32_t)(whole + 128.0f);
      low[c] = (uint8_t)(int32_t)(rintf((value - whole) * 254.0f) + 128.0f);
    }
  }
}

// out = scale * (high + low / 254) + bias for the products [2, rows, columns] of both planes.
void plato_combine(const float *products, const float *scales, const float *bias, int64_t rows,
                   int64_t columns, float *out) {
#pragma omp parallel for if (rows * columns > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const float *high = products + r * columns, *low = products + (rows + r) * columns;
    float *to = out + r * columns;
    float scale = scales[r];
    if (bias)
      for (int64_t c = 0; c < columns; c++)
        to[c] = scale * (high[c] + low[c] * (1.0f / 254.0f)) + bias[c];
    else
      for (int64_t c = 0; c < columns; c++)
        to[c] = scale * (high[c] + low[c] * (1.0f / 254.0f));
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
