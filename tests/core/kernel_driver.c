// Calls the C kernels as XLA does, on random and on damaged problems, with every buffer in memory of exactly its size:
// under AddressSanitizer a read or write outside of one ends the program. What the kernels accept is compared with
// loops that are written as the formulas are; values are small integers, so that sums are exact.

#include <math.h>
#include <stdio.h>

#include "kernel.h"

XLA_FFI_Error *relic_spmm(XLA_FFI_CallFrame *frame);
XLA_FFI_Error *relic_sddmm(XLA_FFI_CallFrame *frame);
XLA_FFI_Error *relic_scatter(XLA_FFI_CallFrame *frame);
XLA_FFI_Error *relic_topk(XLA_FFI_CallFrame *frame);

enum { SPMM, SDDMM, SCATTER, TOPK, MOST_BUFFERS = 6 };

static uint64_t state = 1;

static int64_t draw(int64_t low, int64_t high) {  // both included
  state = state * 6364136223846793005u + 1442695040888963407u;
  return low + (int64_t)((state >> 33) % (uint64_t)(high - low + 1));
}

static bool chance(int percent) { return draw(1, 100) <= percent; }

static XLA_FFI_Error *create(XLA_FFI_Error_Create_Args *args) { return (XLA_FFI_Error *)(uintptr_t)args->message; }

static void make(XLA_FFI_Buffer *buffer, XLA_FFI_DataType dtype, int axes, const int64_t *batch, int own,
                 int64_t last_but_one, int64_t last) {
  *buffer = (XLA_FFI_Buffer){.dtype = dtype, .rank = axes + own};
  buffer->dims = malloc((axes + own + 1) * sizeof(int64_t));
  for (int axis = 0; axis < axes; ++axis) buffer->dims[axis] = batch[axis] > 1 && chance(40) ? 1 : batch[axis];
  if (own == 2) buffer->dims[axes] = last_but_one;
  buffer->dims[axes + own - 1] = last;
}

static int64_t entries(const XLA_FFI_Buffer *buffer) { return slices(buffer, (int)buffer->rank); }

static void allocate(XLA_FFI_Buffer *buffer) { buffer->data = malloc(entries(buffer) * size_of(buffer)); }

static double get(const XLA_FFI_Buffer *buffer, int axes, const int64_t *index, int64_t at) {
  const char *data = slice(buffer, axes, index);
  return buffer->dtype == XLA_FFI_DataType_F64   ? ((const double *)data)[at]
         : buffer->dtype == XLA_FFI_DataType_F32 ? ((const float *)data)[at]
                                                 : ((const int32_t *)data)[at];
}

static void fill(XLA_FFI_Buffer *buffer, int64_t low, int64_t high) {
  for (int64_t i = 0; i < entries(buffer); ++i) {
    const int64_t value = draw(low, high);
    if (buffer->dtype == XLA_FFI_DataType_F64) ((double *)buffer->data)[i] = value;
    else if (buffer->dtype == XLA_FFI_DataType_F32) ((float *)buffer->data)[i] = value;
    else ((int32_t *)buffer->data)[i] = value;
  }
}

// Rows that begin in ascending order; not so where they are damaged.
static void fill_starts(XLA_FFI_Buffer *buffer, int64_t edges, bool damaged) {
  const int64_t n = buffer->dims[buffer->rank - 1];
  int32_t *data = buffer->data;
  fill(buffer, damaged ? -3 : 0, damaged ? edges + 3 : edges);
  for (int64_t i = 0; !damaged && i < entries(buffer); ++i)
    for (int64_t j = i; j > i / n * n && data[j - 1] > data[j]; --j) {
      const int32_t moved = data[j];
      data[j] = data[j - 1];
      data[j - 1] = moved;
    }
}

static double at_or_nan(const XLA_FFI_Buffer *b, int axes, const int64_t *index, int64_t row, int64_t rows,
                        int64_t width, int64_t j) {
  return row < 0 || row >= rows ? NAN : get(b, axes, index, row * width + j);
}

// What the kernel should give for one entry of one slice of the result.
static double expected(int kind, XLA_FFI_Buffer *b, int axes, const int64_t *index, int64_t at) {
  double sum = 0;
  if (kind == SCATTER) {
    const int64_t k = length(&b[0], 0), width = length(&b[2], 0);
    for (int64_t e = 0; e < length(&b[0], 1) * k; ++e)
      if (get(&b[0], axes, index, e) == at / width)
        sum += get(&b[1], axes, index, e) * get(&b[2], axes, index, e / k * width + at % width);
    return sum;
  }
  const int64_t rows = length(&b[0], 0) - 1, columns = length(&b[4], 1), width = length(&b[4], 0);
  const int64_t first = kind == SPMM ? at / width : 0, end = kind == SPMM ? first + 1 : rows;
  for (int64_t r = first; r < end; ++r)
    for (int64_t e = get(&b[0], axes, index, r); e < get(&b[0], axes, index, r + 1); ++e) {
      const int64_t c = get(&b[1], axes, index, e);
      if (kind == SPMM) {
        const int64_t place = length(&b[2], 0) ? get(&b[2], axes, index, e) : e;
        sum += at_or_nan(&b[3], axes, index, place, length(&b[3], 0), 1, 0) *
               at_or_nan(&b[4], axes, index, c, columns, width, at % width);
      }
      if (kind == SDDMM && e == at) {
        for (int64_t j = 0; j < width; ++j)
          sum += get(&b[3], axes, index, r * width + j) * at_or_nan(&b[4], axes, index, c, columns, width, j);
        return width || (c >= 0 && c < columns) ? sum : NAN;
      }
    }
  return kind == SDDMM ? NAN : sum;
}

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void compare(int kind, XLA_FFI_Buffer *b, const XLA_FFI_Buffer *out, int own) {
  const int axes = (int)out->rank - own;
  int64_t index[MAX_BATCH_AXES] = {0}, size = 1;
  for (int64_t axis = axes; axis < out->rank; ++axis) size *= out->dims[axis];
  for (int64_t batch = 0; batch < slices(out, axes); ++batch) {
    unravel(batch, out, axes, index);
    for (int64_t at = 0; at < size; ++at) {
      const double wanted = expected(kind, b, axes, index, at), found = get(out, axes, index, at);
      if (!same(wanted, found)) {
        fprintf(stderr, "kernel %d gives %g for %g at %ld of slice %ld\n", kind, found, wanted, (long)at, (long)batch);
        exit(2);
      }
    }
  }
}

// Every value found where it is said to stand, in order, and nothing larger left out.
static void compare_largest(const XLA_FFI_Buffer *x, const XLA_FFI_Buffer *values, const XLA_FFI_Buffer *indices) {
  const int64_t width = length(x, 0), k = length(values, 0), rows = slices(x, (int)x->rank - 1);
  const float *data = x->data, *best = values->data;
  const int32_t *at = indices->data;
  for (int64_t i = 0; i < rows * k; ++i) {
    const float *row = data + i / k * width;
    int64_t before = 0;
    for (int64_t j = 0; j < width; ++j) before += row[j] > row[at[i]] || (row[j] == row[at[i]] && j < at[i]);
    if (at[i] < 0 || at[i] >= width || best[i] != row[at[i]] || before != i % k) {
      fprintf(stderr, "top_k: entry %ld is wrong\n", (long)i);
      exit(2);
    }
  }
}

static void damage(XLA_FFI_Buffer *buffer) {
  const int64_t axis = draw(0, buffer->rank - 1);
  if (chance(60)) buffer->dims[axis] = buffer->dims[axis] ? buffer->dims[axis] + draw(-1, 1) : 1;
  else if (chance(50)) buffer->dtype = chance(50) ? XLA_FFI_DataType_F64 : XLA_FFI_DataType_S32;
  else if (buffer->rank > 1 || chance(50)) --buffer->rank;
}

// One problem; whether the kernel refused it.
static bool one(int kind, bool damaged) {
  static const int arguments[] = {5, 5, 3, 1}, owns[] = {2, 1, 2, 1};
  static XLA_FFI_Error *(*const kernels[])(XLA_FFI_CallFrame *) = {relic_spmm, relic_sddmm, relic_scatter, relic_topk};
  static const int widths[] = {0, 1, 2, 16, 31, 32, 33, 40, 64, 65};
  const XLA_FFI_DataType real = kind < TOPK && chance(30) ? XLA_FFI_DataType_F64 : XLA_FFI_DataType_F32;
  const XLA_FFI_DataType whole = XLA_FFI_DataType_S32;
  const int axes = (int)draw(0, 2), args = arguments[kind], rets = kind == TOPK ? 2 : 1;
  const int64_t batch[] = {draw(1, 3), draw(1, 2)}, m = draw(0, chance(20) ? 140 : 12), n = draw(0, 9);
  const int64_t d = widths[draw(0, 9)], edges = draw(0, chance(20) ? 300 : 40), weights = draw(0, 300), k = draw(0, chance(20) ? 70 : 9);
  XLA_FFI_Buffer b[MOST_BUFFERS] = {0}, *out = &b[args];
  const bool slots = kind == SPMM && edges && chance(50);
  if (kind == SPMM || kind == SDDMM) {
    make(&b[0], whole, axes, batch, 1, 0, m + 1);
    make(&b[1], whole, axes, batch, 1, 0, edges);
    make(&b[2], whole, axes, batch, 1, 0, slots ? edges : 0);
    make(&b[3], real, axes, batch, kind == SPMM ? 1 : 2, m, kind == SDDMM ? d : slots ? weights : edges);
    make(&b[4], real, axes, batch, 2, n, d);
  } else if (kind == SCATTER) {
    make(&b[0], whole, axes, batch, 2, n, k);
    make(&b[1], real, axes, batch, 2, n, k);
    make(&b[2], real, axes, batch, 2, n, d);
  } else make(&b[0], real, axes, batch, 1, 0, damaged && chance(30) ? draw(0, k) : k + draw(0, 200));
  const int64_t last = kind == SDDMM ? edges : kind == TOPK ? k : d;
  for (int i = 0; i < rets; ++i) make(&out[i], i ? whole : real, 0, batch, owns[kind], m, last);
  for (int i = 0; i < rets; ++i) {  // results have all batch axes
    free(out[i].dims);
    out[i].rank = axes + owns[kind];
    out[i].dims = malloc((out[i].rank + 1) * sizeof(int64_t));
    for (int axis = 0; axis < axes; ++axis) out[i].dims[axis] = kind == TOPK ? b[0].dims[axis] : batch[axis];
    if (owns[kind] == 2) out[i].dims[axes] = m;
    out[i].dims[out[i].rank - 1] = last;
  }
  const bool broken_starts = damaged && chance(30);
  if (damaged && !broken_starts) damage(&b[draw(0, args + rets - 1)]);
  for (int i = 0; i < args + rets; ++i) allocate(&b[i]);
  for (int i = 0; i < args + rets; ++i) fill(&b[i], -3, 3);
  if (kind == SPMM || kind == SDDMM) {
    const bool has_rows = b[0].rank && b[1].rank && b[0].dtype == whole && length(&b[0], 0);
    if (has_rows) fill_starts(&b[0], length(&b[1], 0), broken_starts);
    fill(&b[1], chance(70) ? 0 : -2, n ? n - (chance(70) ? 1 : -2) : 2);
    fill(&b[2], chance(70) ? 0 : -2, weights + 2);
  }
  if (kind == SCATTER) fill(&b[0], chance(70) ? 0 : -2, m + 2);

  void *pointers[MOST_BUFFERS];
  for (int i = 0; i < args + rets; ++i) pointers[i] = &b[i];
  const XLA_FFI_Api api = {.XLA_FFI_Error_Create = create};
  XLA_FFI_CallFrame frame = {.api = &api,
                             .args = {.size = args, .args = pointers},
                             .rets = {.size = rets, .rets = pointers + args}};
  const bool refused = kernels[kind](&frame) != NULL;
  if (!refused && !damaged) {
    if (kind == TOPK) compare_largest(&b[0], &out[0], &out[1]);
    else compare(kind, b, out, owns[kind]);
  }
  for (int i = 0; i < args + rets; ++i) free(b[i].data), free(b[i].dims);
  if (refused && !damaged) {
    fprintf(stderr, "kernel %d refused a problem that fits\n", kind);
    exit(2);
  }
  return refused;
}

int main(int argc, char **argv) {
  const int problems = argc > 1 ? atoi(argv[1]) : 1000;
  int refused = 0;
  for (int i = 0; i < problems; ++i) refused += one(i % 4, chance(50));
  printf("%d problems, %d refused\n", problems, refused);
  return 0;
}
