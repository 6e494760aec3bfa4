// Products of a sparse pattern with dense matrices on the CPU, called by XLA through its C interface.
//
// spmm:    y[r, :] = sum over edges e of row r of w[slot(e)] * x[cols[e], :]
// sddmm:   s[e]    = sum over k of a[row(e), k] * b[cols[e], k]
// scatter: y[r, :] = sum over pairs (b, i) with indices[b, i] = r of w[b, i] * x[b, :], a product with an unsorted
//                    pattern transposed
//
// Every buffer may have leading batch axes: those of the result, each of that size or 1. Rows are spread over threads
// in ranges with about equally many edges.

#include <pthread.h>

#include "kernel.h"

enum { TILE = 32, AHEAD = 8, EDGES_PER_THREAD = 1 << 12 };

typedef struct {
  const int32_t *indptr, *cols, *slot;  // slot is NULL for the identity
  const void *left, *right;             // spmm: weights, x; sddmm: a, b
  void *out;
  int64_t rows, width;
} Job;

typedef void Kernel(const Job *job, int64_t first, int64_t last);

#define DEFINE_KERNELS(T, SUFFIX)                                                                    \
  static void spmm_##SUFFIX(const Job *job, int64_t first, int64_t last) {                           \
    const int64_t width = job->width;                                                                \
    const T *w = job->left, *x = job->right;                                                         \
    T *y = job->out;                                                                                 \
    const int64_t stop = job->indptr[last];                                                          \
    for (int64_t r = first; r < last; ++r) {                                                         \
      const int64_t begin = job->indptr[r], end = job->indptr[r + 1];                                \
      int64_t k = 0;                                                                                 \
      for (; k + TILE <= width; k += TILE) {                                                         \
        T sum[TILE] = {0};                                                                           \
        for (int64_t e = begin; e < end; ++e) {                                                      \
          if (e + AHEAD < stop) {                                                                    \
            const char *next = (const char *)(x + job->cols[e + AHEAD] * width + k);                 \
            for (size_t line = 0; line < TILE * sizeof(T); line += 64) __builtin_prefetch(next + line); \
          }                                                                                          \
          const T weight = w[job->slot ? job->slot[e] : e];                                          \
          const T *row = x + job->cols[e] * width + k;                                               \
          for (int j = 0; j < TILE; ++j) sum[j] += weight * row[j];                                  \
        }                                                                                            \
        memcpy(y + r * width + k, sum, sizeof sum);                                                  \
      }                                                                                              \
      if (k < width) {                                                                               \
        T *out = y + r * width;                                                                      \
        for (int64_t j = k; j < width; ++j) out[j] = 0;                                              \
        for (int64_t e = begin; e < end; ++e) {                                                      \
          const T weight = w[job->slot ? job->slot[e] : e];                                          \
          const T *row = x + job->cols[e] * width;                                                   \
          for (int64_t j = k; j < width; ++j) out[j] += weight * row[j];                             \
        }                                                                                            \
      }                                                                                              \
    }                                                                                                \
  }                                                                                                  \
  static void sddmm_##SUFFIX(const Job *job, int64_t first, int64_t last) {                          \
    const int64_t width = job->width;                                                                \
    const T *a = job->left, *b = job->right;                                                         \
    T *out = job->out;                                                                               \
    const int64_t stop = job->indptr[last];                                                          \
    for (int64_t r = first; r < last; ++r) {                                                         \
      const T *left = a + r * width;                                                                 \
      for (int64_t e = job->indptr[r]; e < job->indptr[r + 1]; ++e) {                                \
        if (e + AHEAD < stop) {                                                                      \
          const char *next = (const char *)(b + job->cols[e + AHEAD] * width);                       \
          for (size_t line = 0; line < width * sizeof(T); line += 64) __builtin_prefetch(next + line); \
        }                                                                                            \
        const T *right = b + job->cols[e] * width;                                                   \
        T lanes[16] = {0}, sum = 0;                                                                  \
        int64_t k = 0;                                                                               \
        for (; k + 16 <= width; k += 16)                                                             \
          for (int j = 0; j < 16; ++j) lanes[j] += left[k + j] * right[k + j];                       \
        for (; k < width; ++k) sum += left[k] * right[k];                                            \
        for (int j = 0; j < 16; ++j) sum += lanes[j];                                                \
        out[e] = sum;                                                                                \
      }                                                                                              \
    }                                                                                                \
  }

DEFINE_KERNELS(float, f32)
DEFINE_KERNELS(double, f64)

typedef struct {
  Kernel *kernel;
  const Job *job;
  int64_t first, last;
} Range;

static void *run_range(void *argument) {
  const Range *range = argument;
  range->kernel(range->job, range->first, range->last);
  return NULL;
}

// The first row that begins at or after an edge.
static int64_t row_of_edge(const Job *job, int64_t edge) {
  int64_t low = 0, high = job->rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (job->indptr[middle] < edge) low = middle + 1;
    else high = middle;
  }
  return low;
}

static void run(Kernel *kernel, const Job *job) {
  const int64_t edges = job->indptr[job->rows];
  int64_t threads = sysconf(_SC_NPROCESSORS_ONLN);
  const int64_t useful = 1 + edges * job->width / (EDGES_PER_THREAD * TILE);
  if (threads > useful) threads = useful;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  if (threads < 1) threads = 1;
  Range ranges[MAX_THREADS];
  pthread_t ids[MAX_THREADS];
  bool started[MAX_THREADS] = {false};
  int64_t first = 0;
  for (int64_t t = 0; t < threads; ++t) {
    const int64_t last = t + 1 == threads ? job->rows : row_of_edge(job, edges * (t + 1) / threads);
    ranges[t] = (Range){kernel, job, first, last};
    first = last;
    if (t + 1 < threads) started[t] = pthread_create(&ids[t], NULL, run_range, &ranges[t]) == 0;
    if (!started[t]) run_range(&ranges[t]);
  }
  for (int64_t t = 0; t < threads; ++t)
    if (started[t]) pthread_join(ids[t], NULL);
}

// Arguments in order: indptr, cols, slot (empty for the identity), left, right.
static XLA_FFI_Error *call(XLA_FFI_CallFrame *frame, int out_rank, Kernel *single, Kernel *wide) {
  if (is_question(frame)) return NULL;
  if (frame->args.size != 5 || frame->rets.size != 1) return invalid(frame, "expected 5 arguments and 1 result");
  XLA_FFI_Buffer *const *args = (XLA_FFI_Buffer *const *)frame->args.args;
  const XLA_FFI_Buffer *out = frame->rets.rets[0];
  const int axes = (int)out->rank - out_rank;
  if (axes < 0 || axes > MAX_BATCH_AXES) return invalid(frame, "too many batch axes");
  if (args[3]->dtype != out->dtype || args[4]->dtype != out->dtype) return invalid(frame, "dtypes differ");
  Kernel *kernel = out->dtype == XLA_FFI_DataType_F32 ? single : out->dtype == XLA_FFI_DataType_F64 ? wide : NULL;
  if (!kernel) return invalid(frame, "expected float32 or float64");

  int64_t index[MAX_BATCH_AXES] = {0};
  for (int64_t batch = 0; batch < slices(out, axes); ++batch) {
    unravel(batch, out, axes, index);
    const Job job = {.indptr = (const int32_t *)slice(args[0], axes, index),
                     .cols = (const int32_t *)slice(args[1], axes, index),
                     .slot = args[2]->dims[args[2]->rank - 1] ? (const int32_t *)slice(args[2], axes, index) : NULL,
                     .left = slice(args[3], axes, index),
                     .right = slice(args[4], axes, index),
                     .out = slice(out, axes, index),
                     .rows = args[0]->dims[args[0]->rank - 1] - 1,
                     .width = args[4]->dims[args[4]->rank - 1]};
    run(kernel, &job);
  }
  return NULL;
}

XLA_FFI_Error *relic_spmm(XLA_FFI_CallFrame *frame) { return call(frame, 2, spmm_f32, spmm_f64); }
XLA_FFI_Error *relic_sddmm(XLA_FFI_CallFrame *frame) { return call(frame, 1, sddmm_f32, sddmm_f64); }

// The pairs in the order of their index, by counting: where those of each index begin, and each one's place and row.
// False where an index lies outside of 0, ..., rows - 1.
static bool group(const int32_t *indices, int64_t pairs, int64_t k, int64_t rows, int32_t *begin, int32_t *source,
                  int32_t *slot) {
  memset(begin, 0, (rows + 1) * sizeof *begin);
  for (int64_t e = 0; e < pairs; ++e) {
    if (indices[e] < 0 || indices[e] >= rows) return false;
    ++begin[indices[e] + 1];
  }
  for (int64_t r = 0; r < rows; ++r) begin[r + 1] += begin[r];
  for (int64_t e = 0; e < pairs; ++e) {
    const int32_t place = begin[indices[e]]++;
    slot[place] = (int32_t)e;
    source[place] = (int32_t)(e / k);
  }
  memmove(begin + 1, begin, rows * sizeof *begin);
  begin[0] = 0;
  return true;
}

// Arguments in order: indices [b, k], w [b, k], x [b, width].
XLA_FFI_Error *relic_scatter(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  if (frame->args.size != 3 || frame->rets.size != 1) return invalid(frame, "expected 3 arguments and 1 result");
  XLA_FFI_Buffer *const *args = (XLA_FFI_Buffer *const *)frame->args.args;
  const XLA_FFI_Buffer *out = frame->rets.rets[0];
  const int axes = (int)out->rank - 2;
  if (axes < 0 || axes > MAX_BATCH_AXES) return invalid(frame, "too many batch axes");
  if (args[1]->dtype != out->dtype || args[2]->dtype != out->dtype) return invalid(frame, "dtypes differ");
  Kernel *kernel = out->dtype == XLA_FFI_DataType_F32   ? spmm_f32
                   : out->dtype == XLA_FFI_DataType_F64 ? spmm_f64
                                                        : NULL;
  if (!kernel) return invalid(frame, "expected float32 or float64");

  const int64_t rows = out->dims[axes], width = out->dims[axes + 1];
  const int64_t k = args[0]->dims[args[0]->rank - 1], pairs = k * args[0]->dims[args[0]->rank - 2];
  int32_t *memory = malloc((rows + 1 + 2 * pairs) * sizeof *memory);
  if (!memory) return invalid(frame, "out of memory");
  int32_t *source = memory + rows + 1, *slot = source + pairs;
  int64_t index[MAX_BATCH_AXES] = {0};
  for (int64_t batch = 0; batch < slices(out, axes); ++batch) {
    unravel(batch, out, axes, index);
    if (!group((const int32_t *)slice(args[0], axes, index), pairs, k, rows, memory, source, slot)) {
      free(memory);
      return invalid(frame, "an index lies outside of the result");
    }
    const Job job = {.indptr = memory, .cols = source, .slot = slot, .left = slice(args[1], axes, index),
                     .right = slice(args[2], axes, index), .out = slice(out, axes, index), .rows = rows,
                     .width = width};
    run(kernel, &job);
  }
  free(memory);
  return NULL;
}
