// Attention over KV in the slots of a pool, read in place.

#pragma once
#include "platform.h"
#include "team.h"

#define MAX_DIM 256
#define MAX_TILE 16
#define BLOCK 64

// One layer's KV, and the slots that the rows of a step attend to.
typedef struct {
  // [capacity, KV heads, dim], float32 or bfloat16.
  const void *keys, *values;
  int bfloat16;
  // Row r attends to the `lengths[r]` slots that start at `slots + offsets[r]`; `tiles`
  // [tile_count + 1] splits the rows into runs of consecutive rows of one sequence, whose length
  // times heads / KV heads is at most MAX_TILE.
  const int64_t *slots, *offsets, *lengths, *tiles;
  int64_t tile_count, heads, kv_heads, dim;
  float scaling;
} Look;

static inline void load_row(const void *from, int64_t at, int64_t dim, int bfloat16, float *to) {
  if (bfloat16) {
    const uint16_t *packed = (const uint16_t *)from + at;
    for (int64_t d = 0; d < dim; d++) to[d] = from_bfloat16(packed[d]);
  } else {
    memcpy(to, (const float *)from + at, dim * sizeof(float));
  }
}

// The scores of `count` queries for the keys of `length` slots, at most BLOCK; and the weighted sums
// of their values, added to `out`. `dim` and `bfloat16` are constants where these are called, so
// that the loops over them are unrolled.
#ifdef WIDE
// The sums of four vectors, each in the same order.
static inline __m128 sum_four(__m512 a, __m512 b, __m512 c, __m512 d) {
  __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  __m512 low = _mm512_shuffle_ps(ab, cd, 0x44), high = _mm512_shuffle_ps(ab, cd, 0xee);
  __m512 all = _mm512_add_ps(low, high);
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

static inline __m512 load_vector(const void *from, int64_t at, int bfloat16) {
  if (!bfloat16) return _mm512_loadu_ps((const float *)from + at);
  __m256i packed = _mm256_loadu_si256((const __m256i *)((const uint16_t *)from + at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
}

static inline __attribute__((always_inline)) void score_wide(
    const float (*queries)[MAX_DIM], int64_t count, const void *keys, const int64_t *slots,
    int64_t stride, int64_t length, int64_t dim, int bfloat16, float scaling,
    float (*scores)[BLOCK]) {
  for (int64_t t = 0; t < length; t += 4) {
    int64_t at[4];
    for (int64_t k = 0; k < 4; k++) at[k] = slots[t + k < length ? t + k : t] * stride;
    __m512 rows[MAX_DIM / 16][4];
    for (int64_t d = 0; d < dim; d += 16)
      for (int k = 0; k < 4; k++) rows[d / 16][k] = load_vector(keys, at[k] + d, bfloat16);
    for (int64_t i = 0; i < count; i++) {
      __m512 sums[4];
      for (int k = 0; k < 4; k++) sums[k] = _mm512_setzero_ps();
      for (int64_t d = 0; d < dim; d += 16) {
        __m512 query = _mm512_loadu_ps(queries[i] + d);
        for (int k = 0; k < 4; k++) sums[k] = _mm512_fmadd_ps(query, rows[d / 16][k], sums[k]);
      }
      __m128 four = sum_four(sums[0], sums[1], sums[2], sums[3]);
      _mm_storeu_ps(scores[i] + t, _mm_mul_ps(four, _mm_set1_ps(scaling)));
    }
  }
}

// `count` (at most 4) and `vectors` (at most 4, of 16 elements) are constants where this is called,
// so that the sums stay in registers.
static inline __attribute__((always_inline)) void gather_part(
    const float (*scores)[BLOCK], int count, const void *values, const int64_t *slots,
    int64_t stride, int64_t length, int64_t d, int vectors, int bfloat16, float (*out)[MAX_DIM]) {
  __m512 sums[4][4];
  for (int q = 0; q < count; q++)
    for (int v = 0; v < vectors; v++) sums[q][v] = _mm512_loadu_ps(out[q] + d + 16 * v);
  for (int64_t t = 0; t < length; t++)
    for (int v = 0; v < vectors; v++) {
      __m512 value = load_vector(values, slots[t] * stride + d + 16 * v, bfloat16);
      for (int q = 0; q < count; q++)
        sums[q][v] = _mm512_fmadd_ps(_mm512_set1_ps(scores[q][t]), value, sums[q][v]);
    }
  for (int q = 0; q < count; q++)
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(out[q] + d + 16 * v, sums[q][v]);
}

static inline __attribute__((always_inline)) void gather_wide(
    const float (*scores)[BLOCK], int64_t count, const void *values, const int64_t *slots,
    int64_t stride, int64_t length, int64_t dim, int bfloat16, float (*out)[MAX_DIM]) {
#define GATHER(COUNT, VECTORS) \
  gather_part(scores + i, COUNT, values, slots, stride, length, d, VECTORS, bfloat16, out + i)
#define GATHER_COUNT(VECTORS)                \
  switch (count - i) {                       \
    case 1: GATHER(1, VECTORS); break;       \
    case 2: GATHER(2, VECTORS); break;       \
    case 3: GATHER(3, VECTORS); break;       \
    default: GATHER(4, VECTORS);             \
  }
  for (int64_t i = 0; i < count; i += 4) {
    int64_t d = 0;
    for (; d + 64 <= dim; d += 64) GATHER_COUNT(4)
    for (; d < dim; d += 16) GATHER_COUNT(1)
  }
#undef GATHER_COUNT
#undef GATHER
}
#endif

static inline __attribute__((always_inline)) void score(
    const float (*queries)[MAX_DIM], int64_t count, const void *keys, const int64_t *slots,
    int64_t stride, int64_t length, int64_t dim, int bfloat16, float scaling,
    float (*scores)[BLOCK]) {
  for (int64_t t = 0; t < length; t++) {
    float key[MAX_DIM];
    load_row(keys, slots[t] * stride, dim, bfloat16, key);
    for (int64_t i = 0; i < count; i++) {
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t d = 0; d < dim; d++) dot += queries[i][d] * key[d];
      scores[i][t] = dot * scaling;
    }
  }
}

static inline __attribute__((always_inline)) void gather(
    const float (*scores)[BLOCK], int64_t count, const void *values, const int64_t *slots,
    int64_t stride, int64_t length, int64_t dim, int bfloat16, float (*out)[MAX_DIM]) {
  for (int64_t t = 0; t < length; t++) {
    float value[MAX_DIM];
    load_row(values, slots[t] * stride, dim, bfloat16, value);
    for (int64_t i = 0; i < count; i++)
      for (int64_t d = 0; d < dim; d++) out[i][d] += scores[i][t] * value[d];
  }
}

// The query heads of one KV head, for a few consecutive positions of one sequence: softmax in one
// pass with a running maximum (arXiv 1805.02867), a block of positions at a time. Blocks begin at
// fixed positions, and each query has its own sums, so the result does not depend on the tile.
// Query i attends to the first `lengths[i]` slots; lengths are non-decreasing.
static inline __attribute__((always_inline)) void attend_tile(
    const float (*queries)[MAX_DIM], const void *keys, const void *values, const int64_t *slots,
    const int64_t *lengths, int64_t stride, int64_t count, int64_t dim, int bfloat16, float scaling,
    float (*out)[MAX_DIM]) {
  float sum[MAX_TILE], top[MAX_TILE], scores[MAX_TILE][BLOCK];
  for (int64_t i = 0; i < count; i++) {
    sum[i] = 0;
    top[i] = -FLT_MAX;
    for (int64_t d = 0; d < dim; d++) out[i][d] = 0;
  }
  for (int64_t start = 0; start < lengths[count - 1]; start += BLOCK) {
    int64_t rest = lengths[count - 1] - start, length = rest < BLOCK ? rest : BLOCK, first = 0;
    while (lengths[first] <= start) first++;
    const int64_t *at = slots + start;
#ifdef WIDE
    if (dim % 16 == 0)
      score_wide(queries + first, count - first, keys, at, stride, length, dim, bfloat16, scaling,
                 scores + first);
    else
#endif
      score(queries + first, count - first, keys, at, stride, length, dim, bfloat16, scaling,
            scores + first);
    for (int64_t i = first; i < count; i++) {
      int64_t seen = lengths[i] - start < length ? lengths[i] - start : length;
      float highest = top[i], total = 0;
#pragma omp simd reduction(max : highest)
      for (int64_t t = 0; t < seen; t++)
        highest = scores[i][t] > highest ? scores[i][t] : highest;
      for (int64_t t = 0; t < seen; t++) scores[i][t] = fast_exp(scores[i][t] - highest);
#pragma omp simd reduction(+ : total)
      for (int64_t t = 0; t < seen; t++) total += scores[i][t];
      // Slots that a query does not attend to are added with weight 0, which changes no sum.
      for (int64_t t = seen; t < length; t++) scores[i][t] = 0;
      if (start) {
        float shrink = fast_exp(top[i] - highest);
        sum[i] = sum[i] * shrink + total;
        for (int64_t d = 0; d < dim; d++) out[i][d] *= shrink;
      } else {
        sum[i] = total;
      }
      top[i] = highest;
    }
#ifdef WIDE
    if (dim % 16 == 0)
      gather_wide((const float(*)[BLOCK])scores + first, count - first, values, at, stride, length,
                  dim, bfloat16, out + first);
    else
#endif
      gather((const float(*)[BLOCK])scores + first, count - first, values, at, stride, length, dim,
             bfloat16, out + first);
  }
  for (int64_t i = 0; i < count; i++)
    for (int64_t d = 0; d < dim; d++) out[i][d] /= sum[i];
}

// Attention of one query per row, each over its own sequence up to its own position. The query of
// row r is at `queries + r * query_stride` [heads, dim]; `out` is [rows, heads, dim]. Every thread
// of a team calls this, and returns when all are done.
static void attend_rows(Member *member, const float *queries, int64_t query_stride, const Look *look, float *out) {
  int64_t heads = look->heads, kv_heads = look->kv_heads, dim = look->dim;
  // One thread for all heads of a tile, if there are tiles for all threads: the data between the
  // rows of one head is loaded into its cache anyway.
  int64_t run = look->tile_count >= 2 * member->size ? kv_heads : 1;
  int64_t group = heads / kv_heads, stride = kv_heads * dim, size = look->bfloat16 ? 2 : 4;
  SHARED_FOR(task, look->tile_count * kv_heads, run) {
    int64_t head = task % kv_heads, count = 0;
    int64_t begin = look->tiles[task / kv_heads], end = look->tiles[task / kv_heads + 1];
    float local[MAX_TILE][MAX_DIM], result[MAX_TILE][MAX_DIM];
    int64_t seen[MAX_TILE];
    for (int64_t r = begin; r < end; r++)
      for (int64_t g = 0; g < group; g++, count++) {
        memcpy(local[count], queries + r * query_stride + (head * group + g) * dim,
               dim * sizeof(float));
        seen[count] = look->lengths[r];
      }
    const char *k = (const char *)look->keys + head * dim * size;
    const char *v = (const char *)look->values + head * dim * size;
    const int64_t *path = look->slots + look->offsets[begin];
#define ATTEND(DIM, BF16)                                                                      \
  attend_tile((const float(*)[MAX_DIM])local, k, v, path, seen, stride, count, DIM, BF16,      \
              look->scaling, result)
    if (dim == 64 && look->bfloat16) ATTEND(64, 1);
    else if (dim == 64) ATTEND(64, 0);
    else if (dim == 128 && look->bfloat16) ATTEND(128, 1);
    else if (dim == 128) ATTEND(128, 0);
    else if (look->bfloat16) ATTEND(dim, 1);
    else ATTEND(dim, 0);
#undef ATTEND
    count = 0;
    for (int64_t r = begin; r < end; r++)
      for (int64_t g = 0; g < group; g++, count++)
        memcpy(out + (r * heads + head * group + g) * dim, result[count], dim * sizeof(float));
  }
  barrier(member);
}
