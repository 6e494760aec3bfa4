#ifndef RELIC_KERNEL_H
#define RELIC_KERNEL_H

// What the kernels share: errors, slices of buffers with batch axes, and XLA's question about the interface's version.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xla/ffi/api/c_api.h"

enum { MAX_THREADS = 64, MAX_BATCH_AXES = 8 };

static XLA_FFI_Error *invalid(XLA_FFI_CallFrame *frame, const char *message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message,
                                    XLA_FFI_Error_Code_INVALID_ARGUMENT};
  return frame->api->XLA_FFI_Error_Create(&args);
}

static size_t size_of(const XLA_FFI_Buffer *buffer) {
  return buffer->dtype == XLA_FFI_DataType_F64 ? 8 : 4;
}

// Where a buffer's slice for one batch index begins; axes of size 1 are shared by the batch.
static char *slice(const XLA_FFI_Buffer *buffer, int axes, const int64_t *index) {
  int64_t offset = 0, stride = 1;
  for (int64_t axis = buffer->rank - 1; axis >= 0; --axis) {
    if (axis < axes && buffer->dims[axis] > 1) offset += index[axis] * stride;
    stride *= buffer->dims[axis];
  }
  return (char *)buffer->data + offset * size_of(buffer);
}

// Whether a buffer has so many axes of its own behind the batch axes, each of which is that of the result or 1.
static bool is_batched(const XLA_FFI_Buffer *buffer, const XLA_FFI_Buffer *out, int axes, int own) {
  if (buffer->rank != axes + own) return false;
  for (int axis = 0; axis < axes; ++axis)
    if (buffer->dims[axis] != 1 && buffer->dims[axis] != out->dims[axis]) return false;
  return true;
}

// The length of an axis, counted from the last one.
static int64_t length(const XLA_FFI_Buffer *buffer, int from_last) { return buffer->dims[buffer->rank - 1 - from_last]; }

// The index of a slice in row-major order, taken apart by the leading axes of a buffer.
static void unravel(int64_t batch, const XLA_FFI_Buffer *out, int axes, int64_t *index) {
  for (int axis = axes - 1; axis >= 0; --axis) {
    index[axis] = batch % out->dims[axis];
    batch /= out->dims[axis];
  }
}

static int64_t slices(const XLA_FFI_Buffer *out, int axes) {
  int64_t batches = 1;
  for (int axis = 0; axis < axes; ++axis) batches *= out->dims[axis];
  return batches;
}

// Whether XLA asks only for the version of the interface; answers if so.
static bool is_question(XLA_FFI_CallFrame *frame) {
  if (!frame->extension_start || frame->extension_start->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return true;
}

#endif
