// The filter: scores of all pairs on tensor cores, compared in registers and never stored; what may be near is listed.
#pragma once

#include "common/async_copy.cuh"
#include "common/mma.cuh"
#include "knn_topk/knn_topk_scan_shared.cuh"

namespace mdprop {
namespace {

// kRows queries of one block against a range of points. Each warp owns the scores of 32 queries and 64 points of a
// tile; a thread those of queries group, + 8, + 16, + 24 and of two neighbouring points in each product
// (common/mma.cuh).
template <int kRows>
class ScanBlock {
  using Shared = ScanShared<kRows>;
  static constexpr int kThreads = Shared::kThreads;
  static constexpr int kThreadRows = 2 * kRowProducts;
  using Scores = float[kRowProducts][kPointProducts][4];

 public:
  __device__ ScanBlock(const ScanArgs& args, int first_row, int split, int slots)
      : args_(args),
        shared_(*reinterpret_cast<Shared*>(dynamic_shared())),
        queries_(reinterpret_cast<BFloat16*>(dynamic_shared() + sizeof(Shared))),
        first_row_(first_row),
        split_(split),
        slots_(slots),
        chunks_((args.padded_dim + kChunk - 1) / kChunk),
        first_query_(warp_id() % (kRows / kWarpRows) * kWarpRows),
        first_point_(warp_id() / (kRows / kWarpRows) * kWarpPoints) {}

  __device__ void scan() {
    load_rows();
    find_tiles();
    Step now, next;
    load(next);
    Scores scores;
    for (; now.visit < tiles_; advance(now)) {
      advance(next);
      load(next);
      wait_copies<1>();
      __syncthreads();
      if (now.chunk == 0) start_scores(now, scores);
      multiply(now, scores);
      if (now.chunk == chunks_ - 1) collect(now, scores);
      __syncthreads();
      if (shared_.crowded != 0) shrink(args_.capacity - kKnnFilterPoints);
    }
    wait_copies<0>();
    shrink(args_.kept);
    for (int r = threadIdx.x; r < kRows; r += kThreads) {
      args_.counts[list(r)] = shared_.counts[r];
      args_.thresholds[list(r)] = shared_.thresholds[r];
    }
  }

 private:
  // The first of the queries whose scores the thread holds; the others are 8, 16 and 24 further on.
  __device__ int thread_row() const { return first_query_ + lane_id() / 4; }
  __device__ int64_t list(int row) const { return int64_t{first_row_ + row} * args_.splits + split_; }

  __device__ void load_rows() {
    for (int r = threadIdx.x; r < kRows; r += kThreads) {
      shared_.begins[r] = args_.begins[first_row_ + r];
      shared_.ends[r] = args_.ends[first_row_ + r];
      shared_.lists[r] = list(r) * args_.capacity;
      shared_.norms[r] = args_.query_bounds[first_row_ + r];
      shared_.errors[r] = args_.query_bounds[args_.rows + first_row_ + r];
      shared_.counts[r] = args_.counts[list(r)];
      shared_.thresholds[r] = shared_.begins[r] < shared_.ends[r] ? args_.thresholds[list(r)] : -kInfinity;
    }
    if (threadIdx.x == 0) shared_.crowded = 0;
    __syncthreads();
  }

  // The block's part of the tiles that any of its queries may see. They are visited in strides, so that the first ones
  // are a sample of all: thresholds then fall early, also where neighbouring points are alike.
  __device__ void find_tiles() {
    int64_t begin = INT64_MAX, end = 0;
    for (int r = 0; r < kRows; ++r) {
      if (shared_.begins[r] >= shared_.ends[r]) continue;
      begin = shared_.begins[r] < begin ? shared_.begins[r] : begin;
      end = shared_.ends[r] > end ? shared_.ends[r] : end;
    }
    begin = begin > args_.first_point ? begin - args_.first_point : 0;
    end = end - args_.first_point < args_.padded_points ? end - args_.first_point : args_.padded_points;
    tiles_ = 0;
    if (begin >= end) return;
    const int64_t first = begin / kKnnFilterPoints;
    const int64_t all = (end + kKnnFilterPoints - 1) / kKnnFilterPoints - first;
    first_tile_ = static_cast<int>(first + all * split_ / args_.splits);
    tiles_ = static_cast<int>(first + all * (split_ + 1) / args_.splits - first_tile_);
    for (stride_ = tiles_ / 8 * 5 + 1;; ++stride_) {
      int a = tiles_, b = stride_;  // until they share no factor, so that every tile has its turn
      while (b > 0) {
        const int rest = a % b;
        a = b;
        b = rest;
      }
      if (a <= 1) break;
    }
  }

  // 64 features of one tile. Steps take turns with the two halves of the shared memory.
  struct Step {
    int visit = 0;  // how many tiles came before
    int tile = 0;   // which of the block's tiles it is
    int chunk = 0;
    int half = 0;
  };

  __device__ void advance(Step& step) const {
    step.half ^= 1;
    if (++step.chunk < chunks_) return;
    step.chunk = 0;
    ++step.visit;
    step.tile += stride_;
    if (step.tile >= tiles_) step.tile -= tiles_;
  }

  // The first point of a step's tile within the chunk of points.
  __device__ int tile_point(const Step& step) const { return (first_tile_ + step.tile) * kKnnFilterPoints; }

  // Starts the copies of one step, 16 bytes each; none beyond the last.
  __device__ void load(const Step& step) {
    if (step.visit < tiles_) {
      load_points(step);
      if (slots_ < chunks_ || step.visit == 0) load_queries(step);
      if (step.chunk == 0) load_bounds(step);
    }
    commit_copies();
  }

  // How many pieces of 16 bytes a row has in a step. A thread always copies the same one, of one row in kThreads / 8.
  __device__ int parts(const Step& step) const { return min(kChunk, args_.padded_dim - step.chunk * kChunk) / 8; }

  template <int kCount>
  __device__ void load_part(const Step& step, BFloat16* to, const BFloat16* from) const {
    const int part = static_cast<int>(threadIdx.x) % 8, first = static_cast<int>(threadIdx.x) / 8;
    if (part >= parts(step)) return;
    to += first * kPitch + part * 8;
    from += first * args_.padded_dim + step.chunk * kChunk + part * 8;
#pragma unroll
    for (int row = 0; row < kCount; row += kThreads / 8) {
      copy_async<16>(to + row * kPitch, from);
      from += kThreads / 8 * args_.padded_dim;
    }
  }

  __device__ void load_points(const Step& step) {
    load_part<kKnnFilterPoints>(step, shared_.points[step.half][0], args_.points + tile_point(step) * args_.padded_dim);
  }

  __device__ void load_queries(const Step& step) {
    load_part<kRows>(step, slot(step), args_.queries + first_row_ * args_.padded_dim);
  }

  __device__ void load_bounds(const Step& step) {
    for (int i = threadIdx.x; i < 3 * kKnnFilterPoints / 4; i += kThreads) {
      const int kind = i / (kKnnFilterPoints / 4), p = i % (kKnnFilterPoints / 4) * 4;
      copy_async<16>(&shared_.bounds[step.visit % 2][kind][p],
                     args_.point_bounds + kind * args_.padded_points + tile_point(step) + p);
    }
  }

  __device__ BFloat16* slot(const Step& step) const {
    return queries_ + (slots_ < chunks_ ? step.half : step.chunk) * kRows * kPitch;
  }

  // What the sum of products is added to: bias(x) - error(q) norm(x) - norm(q) error(x).
  __device__ void start_scores(const Step& step, Scores& scores) const {
    const auto& bounds = shared_.bounds[step.visit % 2];
    float norms[kThreadRows], errors[kThreadRows];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      norms[i] = shared_.norms[thread_row() + 8 * i];
      errors[i] = shared_.errors[thread_row() + 8 * i];
    }
#pragma unroll
    for (int j = 0; j < kPointProducts; ++j) {
      const int p = first_point_ + j * 8 + lane_id() % 4 * 2;
      const Vector<float, 2> bias = load_vector<2>(&bounds[0][p]), norm = load_vector<2>(&bounds[1][p]),
                             error = load_vector<2>(&bounds[2][p]);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          scores[i / 2][j][i % 2 * 2 + c] = fmaf(-norms[i], error[c], fmaf(-errors[i], norm[c], bias[c]));
        }
      }
    }
  }

  __device__ void multiply(const Step& step, Scores& scores) const {
    const int products = parts(step) / 2;
    // ldmatrix: lanes 8 t .. 8 t + 7 point to the rows of tile t. Of queries, tiles 0 and 1 are 16 rows and 2 and 3 the
    // same 8 features on; of points, tiles 0 and 1 are the two halves of 16 features and 2 and 3 those 8 points on.
    const int in_tile = lane_id() % 8, low = lane_id() / 8 % 2, high = lane_id() / 16;
    const BFloat16* queries = slot(step) + (first_query_ + low * 8 + in_tile) * kPitch + high * 8;
    const BFloat16* points = &shared_.points[step.half][first_point_ + high * 8 + in_tile][low * 8];
    for (int s = 0; s < products; ++s) {
      uint32_t a[kRowProducts][4];
#pragma unroll
      for (int i = 0; i < kRowProducts; ++i) ldmatrix_x4(a[i], queries + i * 16 * kPitch + s * kStep);
#pragma unroll
      for (int j = 0; j < kPointProducts; j += 2) {
        uint32_t pair[4];
        ldmatrix_x4(pair, points + j * 8 * kPitch + s * kStep);
        const uint32_t b[2][2] = {{pair[0], pair[1]}, {pair[2], pair[3]}};
#pragma unroll
        for (int i = 0; i < kRowProducts; ++i) {
          mma_bf16(scores[i][j], a[i], b[0]);
          mma_bf16(scores[i][j + 1], a[i], b[1]);
        }
      }
    }
  }

  // Lists the points whose score is below the threshold of their query.
  __device__ void collect(const Step& step, const Scores& scores) {
    float thresholds[kThreadRows];
    for (int i = 0; i < kThreadRows; ++i) thresholds[i] = shared_.thresholds[thread_row() + 8 * i];
    bool any = false;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPointProducts; ++j) {
        any |= scores[i / 2][j][i % 2 * 2] < thresholds[i] || scores[i / 2][j][i % 2 * 2 + 1] < thresholds[i];
      }
    }
    if (!any) return;
    const int32_t point = args_.first_point + tile_point(step) + first_point_ + lane_id() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPointProducts; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float score = scores[i / 2][j][i % 2 * 2 + c];
          if (score < thresholds[i]) append(thread_row() + 8 * i, point + j * 8 + c, score);
        }
      }
    }
  }

  __device__ __forceinline__ void append(int row, int32_t point, float score) {
    if (point < shared_.begins[row] || point >= shared_.ends[row]) return;
    const int place = atomicAdd(&shared_.counts[row], 1);
    args_.keys[shared_.lists[row] + place] = NarrowKey::make(score, static_cast<uint32_t>(point));
    if (place >= args_.capacity - kKnnFilterPoints) shared_.crowded = 1;
  }

  // Shrinks the lists of more than `most` candidates, one warp a list. Scores equal to the last one kept are dropped
  // too: the certificate asks for distances strictly below the threshold.
  __device__ void shrink(int most) {
    __syncthreads();
    for (int r = warp_id(); r < kRows; r += Shared::kWarps) {
      const int count = shared_.counts[r];
      if (count <= most || count <= args_.kept) continue;
      const NarrowKey largest =
          keep_smallest(args_.keys + list(r) * args_.capacity, count, args_.kept, shared_.histograms[warp_id()]);
      if (lane_id() > 0) continue;
      shared_.thresholds[r] = largest.distance();
      shared_.counts[r] = args_.kept;
    }
    __syncthreads();
    if (threadIdx.x == 0) shared_.crowded = 0;
    __syncthreads();
  }

  const ScanArgs& args_;
  Shared& shared_;
  BFloat16* queries_;
  const int first_row_;
  const int split_, slots_, chunks_;
  const int first_query_, first_point_;  // of the warp, in the block's queries and in a tile
  int first_tile_ = 0;                   // of the block, within the chunk of points
  int tiles_ = 0, stride_ = 1;
};

// Blocks that run at the same time share a range of points, so that these come from the cache.
template <int kRows>
__global__ void __launch_bounds__(ScanShared<kRows>::kThreads)
    knn_scan_kernel(const __grid_constant__ ScanArgs args, int slots) {
  const int row_blocks = args.rows / kRows, place = static_cast<int>(blockIdx.x);
  ScanBlock<kRows> block(args, place % row_blocks * kRows, place / row_blocks, slots);
  block.scan();
}

}  // namespace
}  // namespace mdprop
