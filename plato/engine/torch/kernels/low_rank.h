// The change that an adapter makes to a linear layer for some rows of a step: B @ (A @ x), of low rank
// (LoRA, arXiv 2106.09685). Rows with and without it share one pass over the weights, as in Punica
// (arXiv 2310.18547).
//
// No phase of a step is added: who rounds a row also multiplies it by A, and who computes a block of
// outputs also adds that block of B.

#pragma once
#include "platform.h"

// Outputs that are computed together.
#define OUTPUTS 16
// Columns of B that are converted to float32 together.
#define SLICE 64
// Rows whose sums fit the registers together.
#define ROWS 4

typedef struct Linear Linear;

typedef struct {
  const Linear *reduce;  // A, with `rank` outputs.
  // B in int8. A block of outputs has only the columns from `starts` on, because B of several linears
  // that are computed as one is block diagonal.
  const int8_t *packed;   // [outputs / OUTPUTS, width, OUTPUTS], padded with zeros
  const float *scales;    // [outputs, padded]
  const float *bias;      // [outputs, padded], or null
  const int64_t *starts;  // [outputs / OUTPUTS]
  int64_t width, rank;
} LowRank;

// The rows [begin, end) of a step, and their products with A.
typedef struct {
  int64_t begin, end;
  float *reduced;  // Scratch, [rows, rank].
} Adapted;

typedef float Outputs __attribute__((vector_size(OUTPUTS * sizeof(float))));

static inline Outputs load_outputs(const float *from) {
  Outputs values;
  memcpy(&values, from, sizeof values);
  return values;
}

// Fetches what `expand_block` will need: a block of B is too short for the CPU to expect the next.
static void prefetch_block(const LowRank *change, const Adapted *adapted, int64_t block) {
  if (!change || adapted->begin == adapted->end) return;
  int64_t size = change->width * OUTPUTS;
  __builtin_prefetch(change->scales + block * OUTPUTS);
  for (int64_t at = 0; at < size; at += 64)
    __builtin_prefetch(change->packed + block * size + at);
}

// Adds the products of OUTPUTS outputs of `count` rows. `count` is a constant where this is called, so
// that the sums stay in registers; each waits for its last addition, but none for another's.
static inline __attribute__((always_inline)) void expand_rows(
    const float *reduced, int64_t rank, const float *weights, int64_t columns, Outputs scales,
    Outputs bias, int64_t valid, int count, float *out, int64_t outputs) {
  Outputs sums[ROWS] = {0};
  for (int64_t c = 0; c < columns; c++) {
    Outputs column = load_outputs(weights + c * OUTPUTS);
    for (int r = 0; r < count; r++) sums[r] += reduced[r * rank + c] * column;
  }
  for (int r = 0; r < count; r++) {
    float *to = out + r * outputs;
    Outputs values = sums[r] * scales + bias;
    if (valid == OUTPUTS) values += load_outputs(to);
    else
      for (int64_t o = 0; o < valid; o++) values[o] += to[o];
    memcpy(to, &values, valid * sizeof(float));
  }
}

// Adds a block of B's products to those of the rows in [begin, end) that are adapted.
static void expand_block(const LowRank *change, const Adapted *adapted, int64_t block,
                         int64_t begin, int64_t end, int64_t outputs, float *out) {
  int64_t first = begin > adapted->begin ? begin : adapted->begin;
  int64_t last = end < adapted->end ? end : adapted->end, at = block * OUTPUTS;
  if (first >= last) return;
  int64_t valid = outputs - at < OUTPUTS ? outputs - at : OUTPUTS, rank = change->rank;
  Outputs scales = load_outputs(change->scales + at), none = {0};
  for (int64_t start = 0; start < change->width; start += SLICE) {
    int64_t columns = change->width - start < SLICE ? change->width - start : SLICE;
    const int8_t *packed = change->packed + (block * change->width + start) * OUTPUTS;
    float weights[SLICE * OUTPUTS];
    for (int64_t i = 0; i < columns * OUTPUTS; i++) weights[i] = packed[i];
    Outputs bias = change->bias && start == 0 ? load_outputs(change->bias + at) : none;
    const float *reduced = adapted->reduced + change->starts[block] + start;
    int64_t r = first;
    for (; r + ROWS <= last; r += ROWS)
      expand_rows(reduced + r * rank, rank, weights, columns, scales, bias, valid, ROWS,
                  out + r * outputs + at, outputs);
    for (; r < last; r++)
      expand_rows(reduced + r * rank, rank, weights, columns, scales, bias, valid, 1,
                  out + r * outputs + at, outputs);
  }
}
