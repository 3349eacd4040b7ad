// How the CUDA kernels of multi_batch_norm cut their work: by sizes that the host knows, never by values or by the
// card, so that the same input gives the same bits everywhere.
//
// A line is what a thread group walks along: in [N, C, S] the plane of one sample and channel, in [N, S, C] the
// channels that a block takes of one pixel. `lanes` threads stand side by side on a line, each with `width` values at a
// time. Blocks share the channels in slabs and the lines of a branch in chunks.
//
//   planes: a group of lanes keeps to one channel; groups next to each other take the next channels, then samples
//   rows:   a thread keeps to `width` channels; groups take pixels
#pragma once

#include <algorithm>
#include <cstdint>

#include "multi_batch_norm/multi_batch_norm_math.h"

MDPROP_ISA_BEGIN

constexpr int kNormThreads = 256;
constexpr int kMaxLines = 512;            // lines of a chunk, whose places a block keeps in shared memory
constexpr int kMaxRounds = 32;            // groups on one channel of a block, whose sums one thread adds up
constexpr int64_t kKeptBytes = 64 << 10;  // of a block on the resident route: leaves room on every card from sm_80 on

struct MultiBatchNormPlan {
  int width;            // values of one load
  int lanes;            // a power of two, at most 32
  int block_channels;   // channels of a slab, a power of two
  int slabs;            // of all channels
  int lines_per_chunk;  // at most kMaxLines
  int piece;            // long planes are cut into pieces of so many values, a multiple of 256, a chunk each
  int64_t pieces;       // of a plane
  int64_t max_chunks;   // at least the chunks of all branches together
  int kept;             // loads of each tensor that a thread keeps on the resident route; 0: the streaming route
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int vector_width(const MultiBatchNormShape& shape, int64_t element_bytes) {
  const int64_t line = reads_rows(shape) ? shape.channels : shape.spatial;
  const int64_t widest = 16 / element_bytes;
  if (element_bytes == 8) return 1;  // fp64 is bound by its sums
  if (line % widest == 0) return static_cast<int>(widest);
  return element_bytes == 2 && line % 4 == 0 ? 4 : 1;
}

// Bytes of x in a chunk: enough chunks to fill a large card, and enough work in each for its sums not to count.
inline int64_t chunk_bytes(const MultiBatchNormShape& shape, int64_t element_bytes) {
  const int64_t total = shape.samples * shape.channels * shape.spatial * element_bytes;
  return std::clamp<int64_t>(total >> 10, 16 << 10, 64 << 10);
}

// Cuts what a slab has of a branch into chunks of about so many bytes. `line_bytes` are those of a line, or of the
// planes of a sample, in a slab.
inline void cut_chunks(MultiBatchNormPlan& plan, const MultiBatchNormShape& shape, int64_t element_bytes,
                       int64_t line_bytes, int64_t bytes) {
  const bool rows = reads_rows(shape);
  plan.lines_per_chunk = static_cast<int>(std::clamp<int64_t>(bytes / line_bytes, 1, kMaxLines));
  plan.piece = static_cast<int>(bytes / element_bytes / 256 * 256);
  plan.pieces = rows ? 1 : divide_up(shape.spatial, plan.piece);
  const int64_t lines = shape.samples * (rows ? shape.spatial : 1);
  plan.max_chunks = (lines / plan.lines_per_chunk + shape.branches) * plan.pieces;
}

// Lanes and slabs of rows: 128 bytes side by side where there are so many, a byte of the mask at least.
inline void spread_rows(MultiBatchNormPlan& plan, const MultiBatchNormShape& shape, int64_t element_bytes) {
  plan.lanes = std::max(1, 8 / plan.width);
  while (plan.lanes < 32 && plan.lanes * plan.width * element_bytes < 128 && plan.lanes * plan.width < shape.channels) {
    plan.lanes *= 2;
  }
  plan.block_channels = plan.lanes * plan.width;
}

// Lanes and slabs of planes: a warp on a plane, or parts of it on several planes where many lanes would find nothing;
// as many channels as it takes to make a chunk.
inline void spread_planes(MultiBatchNormPlan& plan, const MultiBatchNormShape& shape, int64_t element_bytes,
                          int64_t bytes) {
  const int64_t loads = divide_up(shape.spatial, plan.width);
  plan.lanes = 32;
  while (plan.lanes > 8 / plan.width && plan.lanes > 1 && divide_up(loads, plan.lanes) * plan.lanes * 5 > loads * 6) {
    plan.lanes /= 2;
  }
  const int groups = kNormThreads / plan.lanes;
  const int64_t expected = divide_up(shape.samples, shape.branches) * shape.spatial * element_bytes;
  plan.block_channels = std::max(1, groups / kMaxRounds);
  while (plan.block_channels < groups && plan.block_channels < shape.channels &&
         expected * plan.block_channels < bytes) {
    plan.block_channels *= 2;
  }
}

// `tensors` like x are kept by the resident route, which is taken where a branch of average size fits: then one kernel
// reads them once. A larger branch is right all the same, but what does not fit is read again.
inline MultiBatchNormPlan plan_of(const MultiBatchNormShape& shape, int64_t element_bytes, int tensors) {
  const bool rows = reads_rows(shape);
  const int64_t bytes = chunk_bytes(shape, element_bytes);
  MultiBatchNormPlan plan{};
  plan.width = vector_width(shape, element_bytes);
  rows ? spread_rows(plan, shape, element_bytes) : spread_planes(plan, shape, element_bytes, bytes);
  plan.slabs = static_cast<int>(divide_up(shape.channels, plan.block_channels));
  const int64_t line_bytes = plan.block_channels * (rows ? 1 : shape.spatial) * element_bytes;
  const int64_t lines = divide_up(shape.samples, shape.branches) * (rows ? shape.spatial : 1);
  const bool resident = lines * line_bytes * tensors <= kKeptBytes;
  if (resident) plan.kept = static_cast<int>(kKeptBytes / (kNormThreads * plan.width * element_bytes * tensors));
  cut_chunks(plan, shape, element_bytes, line_bytes, resident ? kKeptBytes : bytes);
  return plan;
}

// The parts of the workspace of one call.
struct MultiBatchNormWorkspace {
  explicit MultiBatchNormWorkspace(const MultiBatchNormShape& shape)
      : order(static_cast<int64_t*>(shape.workspace)),
        offsets(order + shape.samples),
        sums(reinterpret_cast<double*>(offsets + shape.branches + 1)),
        partials(sums + shape.branches * (2 * shape.channels + 1)) {}

  int64_t* order;    // [N]
  int64_t* offsets;  // [B + 1]
  double* sums;      // [B, 2C + 1] of the gradient
  double* partials;  // [max_chunks, C, 2] of the streaming route
};

// What a call on a card needs beside its tensors, for either direction.
inline int64_t workspace_bytes(MultiBatchNormShape shape, int64_t element_bytes) {
  shape.workspace = nullptr;
  const MultiBatchNormPlan plan = plan_of(shape, element_bytes, 2);  // the one with more chunks
  const int64_t numbers = shape.samples + shape.branches + 1 + shape.branches * (2 * shape.channels + 1) +
                          2 * plan.max_chunks * shape.channels;
  return numbers * static_cast<int64_t>(sizeof(int64_t));
}

MDPROP_ISA_END
