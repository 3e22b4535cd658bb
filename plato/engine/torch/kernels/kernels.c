// Decoder layers for a few rows at a time: matrix products with int8 weights, and everything
// between them.
//
// Plain C that the compiler vectorises for this machine (-O3 -march=native). Every output row
// depends on its own input row alone, and the order of sums does not depend on the batch: a
// sequence gets the same bits alone and batched.
//
// All activations are float32, row-major and contiguous.

#include "attention.h"
#include "linear.h"
#include "platform.h"
#include "team.h"

// x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467).
static void norm_row(const float *from, const float *weight, float eps, int64_t columns,
                     float *to) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; c++) sum += from[c] * from[c];
  float factor = 1.0f / sqrtf(sum / (float)columns + eps);
  for (int64_t c = 0; c < columns; c++) to[c] = from[c] * factor * weight[c];
}

// silu(gate) * up (arXiv 2002.05202); `both` is gate [columns], then up. May work in place.
static void swiglu_row(const float *both, int64_t columns, float *to) {
  const float *up = both + columns;
  for (int64_t c = 0; c < columns; c++)
    to[c] = both[c] / (1.0f + fast_exp(-both[c])) * up[c];
}

static inline void rotate(float *x, const float *cosine, const float *sine, int64_t dim) {
  int64_t half = dim / 2;
  for (int64_t d = 0; d < half; d++) {
    float first = x[d], second = x[half + d];
    x[d] = first * cosine[d] - second * sine[d];
    x[half + d] = second * cosine[half + d] + first * sine[half + d];
  }
}

// Rotates queries and keys of a row [heads + 2 * KV heads, dim] in place (rotary position embedding
// in halves, arXiv 2104.09864) and writes its keys and values to `slot`.
static void rotate_and_store_row(float *row, const float *cosine, const float *sine, int64_t slot,
                                 int64_t heads, int64_t kv_heads, int64_t dim, int bfloat16,
                                 void *keys, void *values) {
  int64_t kept = kv_heads * dim, at = slot * kept;
  for (int64_t h = 0; h < heads + kv_heads; h++) rotate(row + h * dim, cosine, sine, dim);
  const float *key = row + heads * dim, *value = key + kept;
  if (bfloat16) {
    uint16_t *k = (uint16_t *)keys + at, *v = (uint16_t *)values + at;
    for (int64_t i = 0; i < kept; i++) k[i] = to_bfloat16(key[i]);
    for (int64_t i = 0; i < kept; i++) v[i] = to_bfloat16(value[i]);
  } else {
    memcpy((float *)keys + at, key, kept * sizeof(float));
    memcpy((float *)values + at, value, kept * sizeof(float));
  }
}

// Called once, before anything else. Returns how many inputs are adjacent in a packed weight: 2, or
// 4, and then inputs are padded to 64.
int64_t plato_prepare(void) {
  prepare_products();
  pthread_atfork(NULL, NULL, forget_helpers);
  return weight_group();
}

void plato_rms_norm(const float *x, const float *weight, float eps, int64_t rows, int64_t columns,
                    float *out) {
  for (int64_t r = 0; r < rows; r++)
    norm_row(x + r * columns, weight, eps, columns, out + r * columns);
}

void plato_swiglu(const float *both, int64_t rows, int64_t columns, float *out) {
  for (int64_t r = 0; r < rows; r++)
    swiglu_row(both + 2 * r * columns, columns, out + r * columns);
}

void plato_rotate_and_store(float *qkv, const float *cosine, const float *sine,
                            const int64_t *slots, int64_t rows, int64_t heads, int64_t kv_heads,
                            int64_t dim, int bfloat16, void *keys, void *values) {
  int64_t width = (heads + 2 * kv_heads) * dim;
  for (int64_t r = 0; r < rows; r++)
    rotate_and_store_row(qkv + r * width, cosine + r * dim, sine + r * dim, slots[r], heads,
                         kv_heads, dim, bfloat16, keys, values);
}

typedef struct {
  const float *queries;
  int64_t query_stride;
  const Look *look;
  float *out;
} Attention;

static void attend(Member *member, void *data) {
  const Attention *all = data;
  attend_rows(member, all->queries, all->query_stride, all->look, all->out);
}

void plato_attend(int threads, const float *queries, int64_t query_stride, const Look *look,
                  float *out) {
  Attention all = {queries, query_stride, look, out};
  together(threads, attend, &all);
}

typedef struct {
  const Linear *linear;
  const float *x;
  int64_t rows;
  int8_t *rounded;  // Scratch, [rows, 2 * padded columns].
  float *scales;    // Scratch, [rows].
  float *out;
} Product;

static void multiply_all(Member *member, void *data) {
  const Product *all = data;
  int64_t columns = all->linear->columns;
  SHARED_FOR(r, all->rows, 1)
    round_row(all->x + r * columns, columns, all->rounded + r * 2 * padded(columns),
              all->scales + r);
  barrier(member);
  multiply_rows(member, all->linear, all->rounded, all->scales, all->rows, NULL, 0, all->out);
}

void plato_linear(int threads, const Linear *linear, const float *x, int64_t rows, int8_t *rounded,
                  float *scales, float *out) {
  Product all = {linear, x, rows, rounded, scales, out};
  together(threads, multiply_all, &all);
}

typedef struct {
  const float *attention_norm, *mlp_norm, *query_norm, *key_norm;  // The last two may be null.
  float eps;
  Linear qkv, output, gate_up, down;
} Layer;

// The rows of one step.
typedef struct {
  int64_t rows, hidden;
  int64_t adapted_begin, adapted_end;  // The rows that are computed with the adapter.
  const float *cosine, *sine;  // [rows, dim]
  const int64_t *new_slots;    // [rows]: where a row's KV goes
  void *const *keys, *const *values;  // Of every layer.
  Look look;                   // Its keys and values are filled in here.
} Step;

// Buffers between the products of a step; sizes are per row.
typedef struct {
  float *normed;    // [hidden]
  float *qkv;       // [heads + 2 * KV heads, dim]
  float *attended;  // [heads, dim]
  float *both;      // [2 * intermediate]
  int8_t *rounded;  // [2 * padded widest input]
  float *scales;
  float *reduced;   // [highest rank]
} Scratch;

enum { PRODUCTS, ATTENTION, BETWEEN, PHASES };
static double seconds[PHASES];

// Adds the time since `*since` to a phase; called by one thread.
static void count(const Member *member, int phase, double *since) {
  if (member->number) return;
  double time = now();
  seconds[phase] += time - *since;
  *since = time;
}

// Seconds in the phases of `plato_layers` so far: products, attention, everything else.
void plato_seconds(double *out) { memcpy(out, seconds, sizeof seconds); }

// Most rows that a thread prepares for a product at a time, if they are multiplied by A as well: that
// takes a row alone as long as several.
#define RUN 16

static void compute_layer(Member *member, const Layer *layer, const Step *step, const Look *look,
                          const Scratch *scratch, float *hidden, double *since) {
  int64_t rows = step->rows, size = step->hidden, dim = look->dim;
  int64_t heads = look->heads, kv_heads = look->kv_heads, all = (heads + 2 * kv_heads) * dim;
  int64_t inner = layer->down.columns, attended = heads * dim;
  Adapted adapted = {step->adapted_begin, step->adapted_end, scratch->reduced};
  int64_t run = (adapted.end - adapted.begin) / (4 * member->size);
  run = run < 1 ? 1 : run > RUN ? RUN : run;
#define ROUND(FROM, COLUMNS) \
  round_row(FROM, COLUMNS, scratch->rounded + r * 2 * padded(COLUMNS), scratch->scales + r)
#define REDUCE(LINEAR) \
  reduce_rows(&layer->LINEAR, scratch->rounded, scratch->scales, &adapted, begin, end)
#define MULTIPLY_ROWS(LINEAR, ADD, OUT)                                                \
  barrier(member);                                                                     \
  count(member, BETWEEN, since);                                                       \
  multiply_rows(member, &layer->LINEAR, scratch->rounded, scratch->scales, rows,       \
                &adapted, ADD, OUT);                                                   \
  count(member, PRODUCTS, since)
  SHARED_RUNS(begin, end, rows, run) {
    for (int64_t r = begin; r < end; r++) {
      float *normed = scratch->normed + r * size;
      norm_row(hidden + r * size, layer->attention_norm, layer->eps, size, normed);
      ROUND(normed, size);
    }
    REDUCE(qkv);
  }
  MULTIPLY_ROWS(qkv, 0, scratch->qkv);
  SHARED_FOR(r, rows, 1) {
    float *row = scratch->qkv + r * all, *keys = row + heads * dim;
    for (int64_t h = 0; layer->query_norm && h < heads; h++)
      norm_row(row + h * dim, layer->query_norm, layer->eps, dim, row + h * dim);
    for (int64_t h = 0; layer->key_norm && h < kv_heads; h++)
      norm_row(keys + h * dim, layer->key_norm, layer->eps, dim, keys + h * dim);
    rotate_and_store_row(row, step->cosine + r * dim, step->sine + r * dim, step->new_slots[r],
                         heads, kv_heads, dim, look->bfloat16, (void *)look->keys,
                         (void *)look->values);
  }
  barrier(member);
  count(member, BETWEEN, since);
  attend_rows(member, scratch->qkv, all, look, scratch->attended);
  count(member, ATTENTION, since);
  SHARED_RUNS(begin, end, rows, run) {
    for (int64_t r = begin; r < end; r++) ROUND(scratch->attended + r * attended, attended);
    REDUCE(output);
  }
  MULTIPLY_ROWS(output, 1, hidden);
  SHARED_RUNS(begin, end, rows, run) {
    for (int64_t r = begin; r < end; r++) {
      float *normed = scratch->normed + r * size;
      norm_row(hidden + r * size, layer->mlp_norm, layer->eps, size, normed);
      ROUND(normed, size);
    }
    REDUCE(gate_up);
  }
  MULTIPLY_ROWS(gate_up, 0, scratch->both);
  SHARED_RUNS(begin, end, rows, run) {
    for (int64_t r = begin; r < end; r++) {
      float *both = scratch->both + 2 * r * inner;
      swiglu_row(both, inner, both);
      ROUND(both, inner);
    }
    REDUCE(down);
  }
  MULTIPLY_ROWS(down, 1, hidden);
#undef ROUND
#undef REDUCE
#undef MULTIPLY_ROWS
}

typedef struct {
  const Layer *layers;
  int64_t count;
  const Step *step;
  const Scratch *scratch;
  float *hidden;
} Decoder;

static void compute_layers(Member *member, void *data) {
  const Decoder *all = data;
  double since = now();
  Look look = all->step->look;
  for (int64_t l = 0; l < all->count; l++) {
    look.keys = all->step->keys[l];
    look.values = all->step->values[l];
    compute_layer(member, all->layers + l, all->step, &look, all->scratch, all->hidden, &since);
  }
}

// All layers of a decoder, on `hidden` [rows, hidden size] in place.
void plato_layers(int threads, const Layer *layers, int64_t layer_count, const Step *step,
                  const Scratch *scratch, float *hidden) {
  Decoder all = {layers, layer_count, step, scratch, hidden};
  together(threads, compute_layers, &all);
}
