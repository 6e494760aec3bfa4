// Products of a sparse pattern with dense matrices on the CPU, called by XLA through its C interface.
//
// spmm:    y[r, :] = sum over edges e of row r of w[slot(e)] * x[cols[e], :]
// sddmm:   s[e]    = sum over k of a[row(e), k] * b[cols[e], k]
// scatter: y[r, :] = sum over pairs (b, i) with indices[b, i] = r of w[b, i] * x[b, :], a product with an unsorted
//                    pattern transposed
//
// Every buffer may have leading batch axes: those of the result, each of that size or 1. Rows are spread over threads
// in ranges with about equally many edges.
//
// Nothing outside of the buffers is read or written, whatever they hold. A column, or a slot, that does not exist gives
// NaN where it is used; an index of scatter that names no row adds to none.

#include <math.h>
#include <pthread.h>

#include "kernel.h"

enum { TILE = 32, AHEAD = 8, EDGES_PER_THREAD = 1 << 12, ROWS_AT_ONCE = 64, FAR = 1 << 11 };

typedef struct {
  const int32_t *indptr, *cols, *slot;  // slot is NULL for the identity
  const void *left, *right;             // spmm: weights, x; sddmm: a, b
  void *out;
  int64_t rows, columns, weights, width;  // columns: rows of what is on the right
} Job;

typedef void Kernel(const Job *job, int64_t first, int64_t last);

// s + a b, rounded once where the processor can: as the compiler has it in the other loops.
#ifdef __FP_FAST_FMAF
static inline float added_f32(float s, float a, float b) { return fmaf(a, b, s); }
static inline double added_f64(double s, double a, double b) { return fma(a, b, s); }
#else
static inline float added_f32(float s, float a, float b) { return s + a * b; }
static inline double added_f64(double s, double a, double b) { return s + a * b; }
#endif

// Asks for memory before it is needed.
static inline void prefetch(const void *base, int64_t offset, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64)
    __builtin_prefetch((const void *)((uintptr_t)base + (uintptr_t)(offset + line)));
}

static inline bool outside(int64_t i, int64_t count) { return (uint64_t)i >= (uint64_t)count; }

// Whether all of some numbers are among 0, ..., count - 1.
static bool inside(const int32_t *numbers, int64_t n, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = (uint32_t)numbers[i] > largest ? (uint32_t)numbers[i] : largest;
  return n <= 0 || (largest <= INT32_MAX && largest < count);
}

// Whether all edges of some rows exist: the loops then need not ask for each.
static bool is_sound(const Job *job, int64_t first, int64_t last) {
  const int64_t begin = job->indptr[first], n = job->indptr[last] - begin;
  return inside(job->cols + begin, n, job->columns) && (!job->slot || inside(job->slot + begin, n, job->weights));
}

#define INLINE __attribute__((always_inline)) static inline

#define DEFINE_KERNELS(T, SUFFIX)                                                                    \
  INLINE void spmm_rows_##SUFFIX(const Job *job, const int32_t *slot, int64_t first, int64_t last,   \
                                 const bool sound) {                                                 \
    const int32_t *cols = job->cols;                                                                 \
    const int64_t width = job->width;                                                                \
    const T *w = job->left, *x = job->right;                                                         \
    T *y = job->out;                                                                                 \
    const int64_t stop = job->indptr[job->rows];                                                     \
    for (int64_t r = first; r < last; ++r) {                                                         \
      const int64_t begin = job->indptr[r], end = job->indptr[r + 1];                                \
      prefetch(cols, (begin + FAR) * (int64_t)sizeof *cols, (end - begin) * (int64_t)sizeof *cols);  \
      int64_t k = 0;                                                                                 \
      for (; k + TILE <= width; k += TILE) {                                                         \
        T sum[TILE] = {0};                                                                           \
        for (int64_t e = begin; e < end; ++e) {                                                      \
          if (e + AHEAD < stop)                                                                      \
            prefetch(x, (cols[e + AHEAD] * width + k) * (int64_t)sizeof(T), TILE * sizeof(T));       \
          const int64_t at = slot ? slot[e] : e, c = cols[e];                                        \
          if (!sound && (outside(c, job->columns) || outside(at, job->weights))) {                   \
            for (int j = 0; j < TILE; ++j) sum[j] = (T)NAN;                                          \
            break;                                                                                   \
          }                                                                                          \
          const T weight = w[at];                                                                    \
          const T *row = x + c * width + k;                                                          \
          for (int j = 0; j < TILE; ++j) sum[j] += weight * row[j];                                  \
        }                                                                                            \
        memcpy(y + r * width + k, sum, sizeof sum);                                                  \
      }                                                                                              \
      if (k + 1 == width) { /* sums of rows, and what carries a column of ones */                    \
        T sum = 0;                                                                                   \
        for (int64_t e = begin; e < end; ++e) {                                                      \
          const int64_t at = slot ? slot[e] : e, c = cols[e];                                        \
          if (!sound && (outside(c, job->columns) || outside(at, job->weights))) {                   \
            sum = (T)NAN;                                                                            \
            break;                                                                                   \
          }                                                                                          \
          sum = added_##SUFFIX(sum, w[at], x[c * width + k]);                                        \
        }                                                                                            \
        y[r * width + k] = sum;                                                                      \
      } else if (k < width) {                                                                        \
        T *out = y + r * width;                                                                      \
        for (int64_t j = k; j < width; ++j) out[j] = 0;                                              \
        for (int64_t e = begin; e < end; ++e) {                                                      \
          const int64_t at = slot ? slot[e] : e, c = cols[e];                                        \
          if (!sound && (outside(c, job->columns) || outside(at, job->weights))) {                   \
            for (int64_t j = k; j < width; ++j) out[j] = (T)NAN;                                     \
            break;                                                                                   \
          }                                                                                          \
          const T weight = w[at];                                                                    \
          const T *row = x + c * width;                                                              \
          for (int64_t j = k; j < width; ++j) out[j] += weight * row[j];                             \
        }                                                                                            \
      }                                                                                              \
    }                                                                                                \
  }                                                                                                  \
  static void spmm_##SUFFIX(const Job *job, int64_t first, int64_t last) {                           \
    for (int64_t next; first < last; first = next) {                                                 \
      next = first + ROWS_AT_ONCE < last ? first + ROWS_AT_ONCE : last;                              \
      if (!is_sound(job, first, next)) spmm_rows_##SUFFIX(job, job->slot, first, next, false);       \
      else if (job->slot) spmm_rows_##SUFFIX(job, job->slot, first, next, true);                     \
      else spmm_rows_##SUFFIX(job, NULL, first, next, true);                                         \
    }                                                                                                \
  }                                                                                                  \
  static void sddmm_##SUFFIX(const Job *job, int64_t first, int64_t last) {                          \
    const int32_t *cols = job->cols;                                                                 \
    const int64_t width = job->width;                                                                \
    const T *a = job->left, *b = job->right;                                                         \
    T *out = job->out;                                                                               \
    const int64_t stop = job->indptr[job->rows];                                                     \
    for (int64_t r = first; r < last; ++r) {                                                         \
      const T *left = a + r * width;                                                                 \
      const int64_t end = job->indptr[r + 1];                                                        \
      for (int64_t e = job->indptr[r]; e < end; ++e) {                                               \
        if (e + AHEAD < stop)                                                                        \
          prefetch(b, cols[e + AHEAD] * width * (int64_t)sizeof(T), width * (int64_t)sizeof(T));     \
        if (outside(cols[e], job->columns)) {                                                        \
          out[e] = (T)NAN;                                                                           \
          continue;                                                                                  \
        }                                                                                            \
        const T *right = b + cols[e] * width;                                                        \
        T lanes[16] = {0}, sum = 0;                                                                  \
        int64_t k = 0;                                                                               \
        for (; k + 16 <= width; k += 16)                                                             \
          for (int j = 0; j < 16; ++j) lanes[j] += left[k + j] * right[k + j];                       \
        for (; k < width; ++k) sum += left[k] * right[k];                                            \
        for (int j = 0; j < 16; ++j) sum += lanes[j];                                                \
        out[e] = sum;                                                                                \
      }                                                                                              \
    }                                                                                                \
  }                                                                                                  \
  /* Entries of edges that belong to no row. */                                                      \
  static void unowned_##SUFFIX(T *out, int64_t begin, int64_t end) {                                 \
    for (int64_t e = begin; e < end; ++e) out[e] = (T)NAN;                                           \
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

// Whether rows begin in ascending order, at edges that exist.
static bool ascends(const int32_t *indptr, int64_t rows, int64_t edges) {
  int32_t before = 0;
  bool good = true;
  for (int64_t r = 0; r <= rows; ++r) {
    good &= indptr[r] >= before;
    before = indptr[r];
  }
  return good && before <= edges;
}

typedef struct {
  Kernel *kernels[2];  // float32, float64
  int left, out;       // axes without the batch
} Product;

static Kernel *kernel_for(const Product *product, const XLA_FFI_Buffer *out) {
  return out->dtype == XLA_FFI_DataType_F32   ? product->kernels[0]
         : out->dtype == XLA_FFI_DataType_F64 ? product->kernels[1]
                                              : NULL;
}

// What is wrong with the buffers of a product, NULL where they fit.
static const char *misfit(const Product *product, XLA_FFI_Buffer *const *args, const XLA_FFI_Buffer *out) {
  const int64_t axes = out->rank - product->out;
  if (axes < 0 || axes > MAX_BATCH_AXES) return "too many batch axes";
  const int own[] = {1, 1, 1, product->left, 2};
  for (int i = 0; i < 5; ++i)
    if (!is_batched(args[i], out, (int)axes, own[i])) return "the shapes of the arguments do not fit the result's";
  for (int i = 0; i < 3; ++i)
    if (args[i]->dtype != XLA_FFI_DataType_S32) return "expected int32 for the pattern";
  if (args[3]->dtype != out->dtype || args[4]->dtype != out->dtype) return "dtypes differ";
  if (!kernel_for(product, out)) return "expected float32 or float64";
  const int64_t rows = length(args[0], 0) - 1, edges = length(args[1], 0), slots = length(args[2], 0);
  const int64_t width = length(args[4], 0);
  if (rows < 0) return "the beginnings of rows are missing";
  if (slots && slots != edges) return "expected a slot for every edge";
  if (product->left == 1) {
    if (!slots && length(args[3], 0) != edges) return "expected a weight for every edge";
    return length(out, 1) != rows || length(out, 0) != width ? "the result has another shape" : NULL;
  }
  if (length(args[3], 1) != rows || length(args[3], 0) != width) return "the left operand has another shape";
  return length(out, 0) != edges ? "expected a result for every edge" : NULL;
}

// Arguments in order: indptr, cols, slot (empty for the identity), left, right.
static XLA_FFI_Error *call(XLA_FFI_CallFrame *frame, const Product *product) {
  if (is_question(frame)) return NULL;
  if (frame->args.size != 5 || frame->rets.size != 1) return invalid(frame, "expected 5 arguments and 1 result");
  XLA_FFI_Buffer *const *args = (XLA_FFI_Buffer *const *)frame->args.args;
  const XLA_FFI_Buffer *out = frame->rets.rets[0];
  const char *problem = misfit(product, args, out);
  if (problem) return invalid(frame, problem);

  const int axes = (int)out->rank - product->out;
  const int64_t rows = length(args[0], 0) - 1, edges = length(args[1], 0);
  int64_t index[MAX_BATCH_AXES] = {0};
  for (int64_t batch = 0; batch < slices(out, axes); ++batch) {
    unravel(batch, out, axes, index);
    const Job job = {.indptr = (const int32_t *)slice(args[0], axes, index),
                     .cols = (const int32_t *)slice(args[1], axes, index),
                     .slot = length(args[2], 0) ? (const int32_t *)slice(args[2], axes, index) : NULL,
                     .left = slice(args[3], axes, index),
                     .right = slice(args[4], axes, index),
                     .out = slice(out, axes, index),
                     .rows = rows,
                     .columns = length(args[4], 1),
                     .weights = length(args[3], 0),
                     .width = length(args[4], 0)};
    if (!ascends(job.indptr, rows, edges)) return invalid(frame, "rows do not begin in ascending order");
    run(kernel_for(product, out), &job);
    if (product->out == 1) {
      const int64_t begin = job.indptr[0], end = job.indptr[rows];
      if (out->dtype == XLA_FFI_DataType_F32) {
        unowned_f32(job.out, 0, begin);
        unowned_f32(job.out, end, edges);
      } else {
        unowned_f64(job.out, 0, begin);
        unowned_f64(job.out, end, edges);
      }
    }
  }
  return NULL;
}

static const Product spmm = {{spmm_f32, spmm_f64}, 1, 2}, sddmm = {{sddmm_f32, sddmm_f64}, 2, 1};

XLA_FFI_Error *relic_spmm(XLA_FFI_CallFrame *frame) { return call(frame, &spmm); }
XLA_FFI_Error *relic_sddmm(XLA_FFI_CallFrame *frame) { return call(frame, &sddmm); }

// The pairs in the order of their index, by counting: where those of each index begin, and each one's place and row.
// Those whose index names no row are left out.
static void group(const int32_t *indices, int64_t examples, int64_t k, int64_t rows, int32_t *begin, int32_t *source,
                  int32_t *slot) {
  memset(begin, 0, (rows + 1) * sizeof *begin);
  for (int64_t e = 0; e < examples * k; ++e)
    if (!outside(indices[e], rows)) ++begin[indices[e] + 1];
  for (int64_t r = 0; r < rows; ++r) begin[r + 1] += begin[r];
  for (int64_t b = 0; b < examples; ++b)
    for (int64_t e = b * k; e < (b + 1) * k; ++e) {
      if (outside(indices[e], rows)) continue;
      const int32_t place = begin[indices[e]]++;
      slot[place] = (int32_t)e;
      source[place] = (int32_t)b;
    }
  memmove(begin + 1, begin, rows * sizeof *begin);
  begin[0] = 0;
}

// What is wrong with the buffers of scatter, NULL where they fit.
static const char *misfit_of_scatter(XLA_FFI_Buffer *const *args, const XLA_FFI_Buffer *out) {
  const int64_t axes = out->rank - 2;
  if (axes < 0 || axes > MAX_BATCH_AXES) return "too many batch axes";
  for (int i = 0; i < 3; ++i)
    if (!is_batched(args[i], out, (int)axes, 2)) return "the shapes of the arguments do not fit the result's";
  if (args[0]->dtype != XLA_FFI_DataType_S32) return "expected int32 for the indices";
  if (args[1]->dtype != out->dtype || args[2]->dtype != out->dtype) return "dtypes differ";
  if (!kernel_for(&spmm, out)) return "expected float32 or float64";
  const int64_t b = length(args[0], 1), k = length(args[0], 0);
  if (length(args[1], 1) != b || length(args[1], 0) != k) return "expected a value for every index";
  if (length(args[2], 1) != b || length(args[2], 0) != length(out, 0)) return "the examples have another shape";
  return b * k > INT32_MAX ? "too many indices" : NULL;
}

// Arguments in order: indices [b, k], w [b, k], x [b, width].
XLA_FFI_Error *relic_scatter(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  if (frame->args.size != 3 || frame->rets.size != 1) return invalid(frame, "expected 3 arguments and 1 result");
  XLA_FFI_Buffer *const *args = (XLA_FFI_Buffer *const *)frame->args.args;
  const XLA_FFI_Buffer *out = frame->rets.rets[0];
  const char *problem = misfit_of_scatter(args, out);
  if (problem) return invalid(frame, problem);

  const int axes = (int)out->rank - 2;
  const int64_t rows = length(out, 1), k = length(args[0], 0), examples = length(args[0], 1), pairs = examples * k;
  int32_t *memory = malloc((rows + 1 + 2 * pairs) * sizeof *memory);
  if (!memory) return invalid(frame, "out of memory");
  int32_t *source = memory + rows + 1, *slot = source + pairs;
  int64_t index[MAX_BATCH_AXES] = {0};
  for (int64_t batch = 0; batch < slices(out, axes); ++batch) {
    unravel(batch, out, axes, index);
    group((const int32_t *)slice(args[0], axes, index), examples, k, rows, memory, source, slot);
    const Job job = {.indptr = memory,
                     .cols = source,
                     .slot = slot,
                     .left = slice(args[1], axes, index),
                     .right = slice(args[2], axes, index),
                     .out = slice(out, axes, index),
                     .rows = rows,
                     .columns = examples,
                     .weights = pairs,
                     .width = length(out, 0)};
    run(kernel_for(&spmm, out), &job);
  }
  free(memory);
  return NULL;
}
