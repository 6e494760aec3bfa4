// The k largest of every row, in descending order, the lower index first among equals; NaN counts as largest.
//
// One pass over a row compares blocks with the least of the k best so far; what is larger is collected, and the
// collection is cut back to its k best when it is full. Rows are spread over threads.

#include <pthread.h>

#include "kernel.h"

enum { BLOCK = 32, VALUES_PER_THREAD = 1 << 16 };

typedef struct {
  const int32_t *x;  // floats by their bits
  int32_t *values, *indices;
  int64_t rows, width, k;
  bool failed;
} TopK;

typedef struct {
  TopK *job;
  int64_t first, last;
} Rows;

// Integers in the order of the floats.
static inline int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

// A candidate: larger is better, and all are distinct.
static inline uint64_t packed(int32_t key, int64_t index) {
  return ((uint64_t)((uint32_t)key ^ 0x80000000u) << 32) | (uint32_t)~(uint32_t)index;
}

// Puts the k largest first, in any order.
static void select_largest(uint64_t *a, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const uint64_t pivot = a[low + (high - low) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (a[i] > pivot) ++i;
      while (a[j] < pivot) --j;
      if (i <= j) {
        const uint64_t swapped = a[i];
        a[i++] = a[j];
        a[j--] = swapped;
      }
    }
    if (k - 1 <= j) high = j;
    else if (k - 1 >= i) low = i;
    else return;
  }
}

static void sort_descending(uint64_t *a, int64_t n) {
  static const int64_t gaps[] = {3548, 1577, 701, 301, 132, 57, 23, 10, 4, 1};
  for (size_t g = 0; g < sizeof gaps / sizeof *gaps; ++g)
    for (int64_t i = gaps[g]; i < n; ++i) {
      const uint64_t moved = a[i];
      int64_t j = i;
      for (; j >= gaps[g] && a[j - gaps[g]] < moved; j -= gaps[g]) a[j] = a[j - gaps[g]];
      a[j] = moved;
    }
}

static void top_k_of_row(const int32_t *x, int64_t width, int64_t k, uint64_t *best, int64_t capacity) {
  int64_t count = 0;
  int32_t least = INT32_MIN;
  bool full = false;
  for (int64_t start = 0; start < width; start += BLOCK) {
    const int64_t stop = start + BLOCK < width ? start + BLOCK : width;
    int any = !full;
    if (full && stop - start == BLOCK)
      for (int j = 0; j < BLOCK; ++j) any |= ordered(x[start + j]) > least;
    else
      any = 1;
    if (!any) continue;
    for (int64_t i = start; i < stop; ++i) {
      const int32_t key = ordered(x[i]);
      best[count] = packed(key, i);
      count += !full || key > least;
    }
    if (count + BLOCK >= capacity) {
      select_largest(best, count, k);
      count = k;
      uint64_t lowest = best[0];
      for (int64_t i = 1; i < k; ++i) lowest = best[i] < lowest ? best[i] : lowest;
      least = (int32_t)((uint32_t)(lowest >> 32) ^ 0x80000000u);
      full = true;
    }
  }
  if (count > k) select_largest(best, count, k);
  sort_descending(best, k);
}

static void *run_rows(void *argument) {
  const Rows *range = argument;
  TopK *job = range->job;
  const int64_t capacity = 3 * job->k + 2 * BLOCK + 1;
  uint64_t *best = malloc(capacity * sizeof *best);
  if (!best) {
    job->failed = true;
    return NULL;
  }
  for (int64_t r = range->first; r < range->last; ++r) {
    const int32_t *row = job->x + r * job->width;
    top_k_of_row(row, job->width, job->k, best, capacity);
    for (int64_t i = 0; i < job->k; ++i) {
      const int32_t index = (int32_t)~(uint32_t)best[i];
      job->indices[r * job->k + i] = index;
      job->values[r * job->k + i] = row[index];
    }
  }
  free(best);
  return NULL;
}

// Argument: x [..., width], float32; results: values and indices [..., k]. Leading axes are rows.
XLA_FFI_Error *relic_topk(XLA_FFI_CallFrame *frame) {
  if (is_question(frame)) return NULL;
  if (frame->args.size != 1 || frame->rets.size != 2) return invalid(frame, "expected 1 argument and 2 results");
  const XLA_FFI_Buffer *x = frame->args.args[0];
  const XLA_FFI_Buffer *values = frame->rets.rets[0], *indices = frame->rets.rets[1];
  if (x->dtype != XLA_FFI_DataType_F32 || values->dtype != XLA_FFI_DataType_F32)
    return invalid(frame, "expected float32");
  if (indices->dtype != XLA_FFI_DataType_S32) return invalid(frame, "expected int32 for the places");
  const int axes = (int)x->rank - 1;
  if (axes < 0 || values->rank != x->rank || indices->rank != x->rank || length(values, 0) != length(indices, 0))
    return invalid(frame, "the results have another shape");
  for (int axis = 0; axis < axes; ++axis)
    if (values->dims[axis] != x->dims[axis] || indices->dims[axis] != x->dims[axis])
      return invalid(frame, "the results have another shape");
  TopK job = {.x = x->data, .values = values->data, .indices = indices->data,
              .rows = slices(x, axes), .width = length(x, 0), .k = length(values, 0)};
  if (job.width > INT32_MAX) return invalid(frame, "the rows are too long");
  if (job.k > job.width) return invalid(frame, "k is larger than the rows");
  if (!job.k) return NULL;
  int64_t threads = sysconf(_SC_NPROCESSORS_ONLN);
  const int64_t useful = 1 + job.rows * job.width / VALUES_PER_THREAD;
  if (threads > useful) threads = useful;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  if (threads < 1) threads = 1;
  Rows ranges[MAX_THREADS];
  pthread_t ids[MAX_THREADS];
  bool started[MAX_THREADS] = {false};
  for (int64_t t = 0; t < threads; ++t) {
    ranges[t] = (Rows){&job, job.rows * t / threads, job.rows * (t + 1) / threads};
    if (t + 1 < threads) started[t] = pthread_create(&ids[t], NULL, run_rows, &ranges[t]) == 0;
    if (!started[t]) run_rows(&ranges[t]);
  }
  for (int64_t t = 0; t < threads; ++t)
    if (started[t]) pthread_join(ids[t], NULL);
  return job.failed ? invalid(frame, "out of memory") : NULL;
}
