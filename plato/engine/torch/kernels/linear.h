// A linear layer with int8 weights and int16 inputs: x @ weight.T + bias.
//
// Each row of x is quantised to 16 bits with its own scale, so that the loss is that of the
// weights. Sums are integers until the end, hence exact in any order: a row gets the same bits on
// every CPU and in every batch.

#pragma once
#include "low_rank.h"
#include "platform.h"
#include "team.h"
#ifdef TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Rows whose sums fit the registers together, rows that stay in the second-level cache while all
// weights pass over them, pairs of inputs whose products sum up in 32 bits.
#if defined(WIDE) && defined(__AVX512VNNI__)
#define WIDE_PRODUCTS 1
#define ROW_GROUP 12
#else
#define ROW_GROUP 4
#endif
#define ROW_BLOCK 192
#define PAIRS 256

struct Linear {
  // [outputs / OUTPUTS, inputs / group, OUTPUTS, group], padded with zeros: the data of one
  // task is contiguous. See `weight_group`.
  const int8_t *packed;
  const float *scales;  // [outputs]
  const float *bias;    // [outputs], or null
  int64_t columns, outputs;
  const LowRank *change;  // By an adapter, or null.
};

static int has_tiles;

// Asks the system for the tile registers; once per process, before any product.
static void prepare_products(void) {
#ifdef TILES
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };  // arch_prctl(2)
  has_tiles = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#endif
}

// Consecutive inputs of one output that are adjacent in the packed weight.
static int64_t weight_group(void) { return has_tiles ? 4 : 2; }

// Inputs of a row, padded to the block size of a product.
static int64_t padded(int64_t columns) {
  int64_t unit = has_tiles ? 64 : 2;
  return (columns + unit - 1) / unit * unit;
}

// Quantises a row to 16 bits: as int16, or all high bytes and then all low bytes for tile
// registers. `to` holds 2 * padded(columns) bytes.
static void round_row(const float *from, int64_t columns, void *to, float *scale) {
  int64_t width = padded(columns);
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t c = 0; c < columns; c++) {
    float size = fabsf(from[c]);
    largest = size > largest ? size : largest;
  }
  float inverse = largest > 0 ? 32767.0f / largest : 0;
  *scale = largest / 32767.0f;
  if (has_tiles) {
    int8_t *high = to;
    uint8_t *low = (uint8_t *)to + width;
    for (int64_t c = 0; c < columns; c++) {
      int32_t value = (int32_t)rintf(from[c] * inverse);
      high[c] = (int8_t)(value >> 8);
      low[c] = (uint8_t)value;
    }
    memset(high + columns, 0, width - columns);
    memset(low + columns, 0, width - columns);
  } else {
    int16_t *values = to;
    for (int64_t c = 0; c < columns; c++) values[c] = (int16_t)(int32_t)rintf(from[c] * inverse);
    if (width > columns) values[columns] = 0;
  }
}

// Writes the sums of OUTPUTS outputs of a row, or adds them to the present values.
static inline void finish(const double *sums, const Linear *linear, int64_t start, float scale,
                          int add, float *row) {
  int64_t width = linear->outputs - start < OUTPUTS ? linear->outputs - start : OUTPUTS;
  const float *scales = linear->scales + start;
  float values[OUTPUTS];
  for (int64_t o = 0; o < width; o++) values[o] = (float)sums[o] * scale * scales[o];
  if (linear->bias)
    for (int64_t o = 0; o < width; o++) values[o] += linear->bias[start + o];
  if (add)
    for (int64_t o = 0; o < width; o++) row[start + o] += values[o];
  else
    memcpy(row + start, values, width * sizeof(float));
}

#ifdef TILES
// Tile registers: two blocks of weights, the high and low bytes of the inputs, their products.
#define LEFT 0
#define RIGHT 1
#define HIGH 2
#define LOW 3
#define LEFT_HIGH 4
#define LEFT_LOW 5
#define RIGHT_HIGH 6
#define RIGHT_LOW 7

// Shapes of the tile registers of this thread, for products of `count` rows, at most 16.
static void configure_tiles(int64_t count) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t columns[16];
    uint8_t rows[16];
  } shapes = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) {
    shapes.columns[tile] = 64;
    shapes.rows[tile] = tile <= RIGHT ? 16 : (uint8_t)count;
  }
  _tile_loadconfig(&shapes);
}

// Two blocks of outputs of up to 16 rows at `x`, both bytes of every input: sums of `count` rows.
static inline void multiply_tiles(const int8_t *left, const int8_t *right, const int8_t *x,
                                  int64_t width, int64_t count, double (*sums)[2 * OUTPUTS]) {
  static const int stride = 64;
  int32_t parts[4][16][OUTPUTS] __attribute__((aligned(64)));
  _tile_zero(LEFT_HIGH);
  _tile_zero(LEFT_LOW);
  _tile_zero(RIGHT_HIGH);
  _tile_zero(RIGHT_LOW);
  for (int64_t c = 0; c < width; c += 64) {
    _tile_loadd(HIGH, x + c, 2 * width);
    _tile_loadd(LOW, x + width + c, 2 * width);
    _tile_loadd(LEFT, left + c * OUTPUTS, stride);
    _tile_loadd(RIGHT, right + c * OUTPUTS, stride);
    _tile_dpbssd(LEFT_HIGH, HIGH, LEFT);
    _tile_dpbusd(LEFT_LOW, LOW, LEFT);
    _tile_dpbssd(RIGHT_HIGH, HIGH, RIGHT);
    _tile_dpbusd(RIGHT_LOW, LOW, RIGHT);
  }
  _tile_stored(LEFT_HIGH, parts[0], stride);
  _tile_stored(LEFT_LOW, parts[1], stride);
  _tile_stored(RIGHT_HIGH, parts[2], stride);
  _tile_stored(RIGHT_LOW, parts[3], stride);
  for (int64_t r = 0; r < count; r++)
    for (int64_t o = 0; o < OUTPUTS; o++) {
      sums[r][o] = (double)parts[0][r][o] * 256 + parts[1][r][o];
      sums[r][OUTPUTS + o] = (double)parts[2][r][o] * 256 + parts[3][r][o];
    }
}

// See `multiply_rows`.
static void multiply_rows_in_tiles(Member *member, const Linear *linear, const int8_t *rounded,
                                   const float *scales, int64_t rows, const Adapted *adapted,
                                   int add, float *out) {
  int64_t width = padded(linear->columns), outputs = linear->outputs;
  int64_t blocks = (outputs + OUTPUTS - 1) / OUTPUTS, pairs = (blocks + 1) / 2;
  int64_t passes = (rows + ROW_BLOCK - 1) / ROW_BLOCK, count = rows < 16 ? rows : 16;
  configure_tiles(count);
  SHARED_FOR(task, passes * pairs, 2) {
    int64_t pair = task % pairs, begin = task / pairs * ROW_BLOCK;
    int64_t end = rows - begin < ROW_BLOCK ? rows : begin + ROW_BLOCK;
    for (int64_t b = 2 * pair; b < blocks && b < 2 * pair + 2; b++)
      prefetch_block(linear->change, adapted, b);
    const int8_t *left = linear->packed + 2 * pair * width * OUTPUTS;
    const int8_t *right = 2 * pair + 1 < blocks ? left + width * OUTPUTS : left;
    for (int64_t at = begin; at < end; at += 16) {
      // The last rows are computed together with some before them, which are already done.
      int64_t first = at + count <= rows ? at : rows - count;
      double sums[16][2 * OUTPUTS];
      multiply_tiles(left, right, rounded + first * 2 * width, width, count, sums);
      for (int64_t r = at; r < end && r < first + count; r++) {
        float *row = out + r * outputs;
        finish(sums[r - first], linear, 2 * pair * OUTPUTS, scales[r], add, row);
        if (right != left)
          finish(sums[r - first] + OUTPUTS, linear, (2 * pair + 1) * OUTPUTS, scales[r], add, row);
      }
      // While these outputs are in the first-level cache.
      for (int64_t b = 2 * pair; linear->change && b < blocks && b < 2 * pair + 2; b++)
        expand_block(linear->change, adapted, b, at, at + 16 < end ? at + 16 : end, outputs, out);
    }
  }
  _tile_release();
  barrier(member);
}
#endif

// Adds the products of `pairs` pairs of inputs to `sums` for `count` rows and OUTPUTS outputs.
// |x| <= 32767 and |weight| <= 127, so 2 * PAIRS of them fit 32 bits. `count` is a constant where
// this is called, so that the sums stay in registers; few rows get several sums each, which
// are independent of each other.
#if defined(WIDE_PRODUCTS)
static inline __attribute__((always_inline)) void multiply(const int16_t *x, int64_t stride,
                                                           const int8_t *weight, int64_t pairs,
                                                           int count, double (*sums)[OUTPUTS]) {
  __m512i totals[ROW_GROUP];
  int split = count == 1 ? 4 : count == 2 ? 2 : 1;
  for (int r = 0; r < count * split; r++) totals[r] = _mm512_setzero_si512();
  int64_t whole = pairs / split * split;
#pragma GCC unroll 4
  for (int64_t p = 0; p < pairs; p++) {
    const __m256i *from = (const __m256i *)(weight + p * 2 * OUTPUTS);
    __m512i pairs_of_weights = _mm512_cvtepi8_epi16(_mm256_loadu_si256(from));
    int part = p < whole ? p % split : 0;
    for (int r = 0; r < count; r++) {
      int32_t pair;
      memcpy(&pair, x + r * stride + 2 * p, sizeof pair);
      __m512i *total = &totals[r * split + part];
      *total = _mm512_dpwssd_epi32(*total, pairs_of_weights, _mm512_set1_epi32(pair));
    }
  }
  for (int r = 0; r < count; r++) {
    for (int part = 1; part < split; part++)
      totals[r * split] = _mm512_add_epi32(totals[r * split], totals[r * split + part]);
    int32_t values[OUTPUTS];
    _mm512_storeu_si512(values, totals[r * split]);
    for (int o = 0; o < OUTPUTS; o++) sums[r][o] += values[o];
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
                                                           int count, double (*sums)[OUTPUTS]) {
  __m256i low[ROW_GROUP], high[ROW_GROUP];
  for (int r = 0; r < count; r++) low[r] = high[r] = _mm256_setzero_si256();
  // Without this, gcc copies every sum in every iteration, which takes a third of the time.
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
    int32_t values[OUTPUTS];
    _mm256_storeu_si256((__m256i *)values, low[r]);
    _mm256_storeu_si256((__m256i *)(values + 8), high[r]);
    for (int o = 0; o < OUTPUTS; o++) sums[r][o] += values[o];
  }
}
#else
static inline __attribute__((always_inline)) void multiply(const int16_t *x, int64_t stride,
                                                           const int8_t *weight, int64_t pairs,
                                                           int count, double (*sums)[OUTPUTS]) {
  int32_t totals[ROW_GROUP][OUTPUTS] = {0};
  for (int64_t p = 0; p < pairs; p++)
    for (int r = 0; r < count; r++) {
      int32_t first = x[r * stride + 2 * p], second = x[r * stride + 2 * p + 1];
      for (int o = 0; o < OUTPUTS; o++)
        totals[r][o] += first * weight[2 * (p * OUTPUTS + o)] +
                        second * weight[2 * (p * OUTPUTS + o) + 1];
    }
  for (int r = 0; r < count; r++)
    for (int o = 0; o < OUTPUTS; o++) sums[r][o] += totals[r][o];
}
#endif

// The sums of OUTPUTS outputs of `count` rows, at most ROW_BLOCK.
static void multiply_block(const int16_t *x, int64_t stride, const int8_t *weight, int64_t count,
                           double (*sums)[OUTPUTS]) {
  int64_t groups = (count + ROW_GROUP - 1) / ROW_GROUP, pairs = stride / 2;
  memset(sums, 0, count * sizeof sums[0]);
  for (int64_t p = 0; p < pairs; p += PAIRS) {
    int64_t length = pairs - p < PAIRS ? pairs - p : PAIRS;
    const int8_t *from = weight + p * 2 * OUTPUTS;
    for (int64_t g = 0; g < groups; g++) {
      int64_t first = g * count / groups, next = (g + 1) * count / groups;
      const int16_t *at = x + first * stride + 2 * p;
#define MULTIPLY(COUNT)                                      \
  case COUNT:                                                \
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
}

// out [rows, outputs] = products of rounded rows, or out += them; with the linear's change, if it has
// one, for the rows that are `adapted`. Every thread of a team calls this, and returns when all are
// done.
static void multiply_rows(Member *member, const Linear *linear, const void *rounded,
                          const float *scales, int64_t rows, const Adapted *adapted, int add,
                          float *out) {
#ifdef TILES
  if (has_tiles) {
    multiply_rows_in_tiles(member, linear, rounded, scales, rows, adapted, add, out);
    return;
  }
#endif
  int64_t width = padded(linear->columns), outputs = linear->outputs;
  int64_t blocks = (outputs + OUTPUTS - 1) / OUTPUTS;
  int64_t passes = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
  SHARED_FOR(task, passes * blocks, 4) {
    int64_t block = task % blocks, begin = task / blocks * ROW_BLOCK;
    int64_t count = rows - begin < ROW_BLOCK ? rows - begin : ROW_BLOCK;
    double sums[ROW_BLOCK][OUTPUTS];
    prefetch_block(linear->change, adapted, block);
    multiply_block((const int16_t *)rounded + begin * width, width,
                   linear->packed + block * width * OUTPUTS, count, sums);
    for (int64_t r = 0; r < count; r++)
      finish(sums[r], linear, block * OUTPUTS, scales[begin + r], add,
             out + (begin + r) * outputs);
    if (linear->change)
      expand_block(linear->change, adapted, block, begin, begin + count, outputs, out);
  }
  barrier(member);
}

// Multiplies the adapted ones of the rounded rows [begin, end) by the A of a linear's change. One
// thread calls this.
static void reduce_rows(const Linear *linear, const int8_t *rounded, const float *scales,
                        const Adapted *adapted, int64_t begin, int64_t end) {
  const LowRank *change = linear->change;
  if (begin < adapted->begin) begin = adapted->begin;
  if (end > adapted->end) end = adapted->end;
  if (!change || begin >= end) return;
  Team alone = {0};
  Member member = {&alone, 0, 1, 0};
  multiply_rows(&member, change->reduce, rounded + begin * 2 * padded(linear->columns),
                scales + begin, end - begin, NULL, 0, adapted->reduced + begin * change->rank);
}
