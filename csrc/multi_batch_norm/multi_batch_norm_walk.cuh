// How a thread of multi_batch_norm finds its values, and how a block adds up what its threads found.
#pragma once

#include "common/device.cuh"
#include "common/vector.cuh"
#include "multi_batch_norm/multi_batch_norm_plan.h"

MDPROP_ISA_BEGIN

// Loads under way at once in each thread where a kernel reads so many tensors: what registers hold.
template <typename T, int kWidth, int kTensors>
constexpr int kLoads = sizeof(T) * kWidth >= 16  ? 4 / kTensors
                       : sizeof(T) * kWidth >= 8 ? 4
                                                 : 6;

// Blocks of the streaming kernels that share a multiprocessor at least. Code for sm_120 takes a few registers more than
// three leave it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kStreamingBlocks = 2;
#else
constexpr int kStreamingBlocks = 3;
#endif
constexpr int kResidentBlocks = 2;  // what their shared memory allows

// Which chunk a block has.
struct ChunkPlace {
  int branch;  // B: there is none
  int chunk;   // of those of the branch
  int first;   // the number of the branch's first chunk among all
};

__device__ inline int64_t lines_of(const MultiBatchNormShape& shape, int branch) {
  const int64_t members = shape.offsets[branch + 1] - shape.offsets[branch];
  return reads_rows(shape) ? members * shape.spatial : members;
}

// An empty branch has a chunk too, whose block writes its results.
__device__ inline int chunks_of(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan, int branch) {
  const int64_t chunks = (lines_of(shape, branch) + plan.lines_per_chunk - 1) / plan.lines_per_chunk * plan.pieces;
  return chunks > 0 ? static_cast<int>(chunks) : 1;
}

// Values of each channel in a chunk.
__device__ inline int64_t chunk_values(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan,
                                       const ChunkPlace& place) {
  const int64_t rest = lines_of(shape, place.branch) - place.chunk / plan.pieces * plan.lines_per_chunk;
  const int64_t lines = rest < plan.lines_per_chunk ? rest : plan.lines_per_chunk;
  if (reads_rows(shape)) return lines;
  const int64_t columns = shape.spatial - place.chunk % plan.pieces * plan.piece;
  return lines * (columns < plan.piece ? columns : plan.piece);
}

// Every warp looks for itself, at 32 branches at a time; branches of one sample each have equally many chunks.
__device__ inline ChunkPlace find_chunk(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan, int number) {
  const int branches = static_cast<int>(shape.branches);
  if (shape.one_each) {
    const int each = chunks_of(shape, plan, 0), branch = number / each;
    return branch < branches ? ChunkPlace{branch, number % each, branch * each} : ChunkPlace{branches, 0, 0};
  }
  int before = 0;
  for (int base = 0; base < branches; base += kWarpSize) {
    const int branch = base + lane_id();
    const int own = branch < branches ? chunks_of(shape, plan, branch) : 0;
    int end = own;
    for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
      const int lower = __shfl_up_sync(kAllLanes, end, lanes);
      if (lane_id() >= lanes) end += lower;
    }
    const unsigned past = __ballot_sync(kAllLanes, before + end > number);
    if (past != 0) {
      const int lane = __ffs(static_cast<int>(past)) - 1;
      const int first = before + __shfl_sync(kAllLanes, end - own, lane);
      return {base + lane, number - first, first};
    }
    before += __shfl_sync(kAllLanes, end, kWarpSize - 1);
  }
  return {branches, 0, 0};
}

// Where a load begins, in one register: Walk turns it into an offset where it is needed.
class Place {
 public:
  __device__ Place() : packed_(-1) {}
  __device__ Place(int line, int column) : packed_(line << 16 | column) {}

  // Whether there is anything left for this thread.
  __device__ bool valid() const { return packed_ >= 0; }
  __device__ int line() const { return packed_ >> 16; }       // of the open chunk
  __device__ int column() const { return packed_ & 0xffff; }  // within the piece or slab

 private:
  int packed_;
};
static_assert(kMaxLines <= 1 << 15 && kKeptBytes <= 1 << 16, "a place has 15 bits for the line, 16 for the column");

// The lines of a chunk: where each begins in x and in the mask.
struct Lines {
  int64_t offsets[kMaxLines];
  int64_t bytes[kMaxLines];
};

// The way of one thread through the chunks of a slab. All threads of a block take the same number of steps, so that
// they may meet on the way; those without a value get a place that is not valid.
template <int kWidth>
class Walk {
 public:
  // `lines` is shared memory.
  __device__ Walk(const MultiBatchNormShape& shape, const MultiBatchNormPlan& plan, int slab, Lines& lines)
      : shape_(shape), plan_(plan), table_(lines), first_channel_(slab * plan.block_channels) {
    const int group = static_cast<int>(threadIdx.x) / plan.lanes, groups = kNormThreads / plan.lanes;
    first_column_ = static_cast<int>(threadIdx.x) % plan.lanes * kWidth;
    lane_channel_ = rows() ? first_column_ : group % plan.block_channels;
    const bool active = first_channel_ + lane_channel_ < shape.channels;
    first_line_ = !active ? kMaxLines : rows() ? group : group / plan.block_channels;
    line_step_ = rows() ? groups : groups / plan.block_channels;
    own_offset_ = rows() ? first_column_ : lane_channel_ * shape.spatial + first_column_;
  }

  // The channel of value v of a load, within the slab.
  __device__ int channel(int v) const { return rows() ? lane_channel_ + v : lane_channel_; }
  __device__ int first_channel() const { return first_channel_; }
  __device__ bool rows() const { return reads_rows(shape_); }

  // Thread c speaks for channel c of the slab where a table has one entry a channel.
  __device__ int own_channel() const { return first_channel_ + static_cast<int>(threadIdx.x); }
  __device__ bool owns_channel() const {
    return static_cast<int>(threadIdx.x) < plan_.block_channels && own_channel() < shape_.channels;
  }

  // Goes to the start of a chunk. For all threads of a block together.
  __device__ void open(const ChunkPlace& place) {
    const int64_t first = place.chunk / plan_.pieces * plan_.lines_per_chunk;
    const int64_t rest = lines_of(shape_, place.branch) - first;
    const int64_t piece_start = place.chunk % plan_.pieces * plan_.piece, columns = shape_.spatial - piece_start;
    lines_ = static_cast<int>(rest < plan_.lines_per_chunk ? rest : plan_.lines_per_chunk);
    columns_ = rows() ? plan_.block_channels : static_cast<int>(columns < plan_.piece ? columns : plan_.piece);
    __syncthreads();  // everyone is through with the last chunk's table
    const int64_t* order = shape_.order + shape_.offsets[place.branch];
    for (int i = static_cast<int>(threadIdx.x); i < lines_; i += kNormThreads) {
      const int64_t line = first + i;
      const int64_t at = rows() ? order[line / shape_.spatial] * shape_.spatial + line % shape_.spatial
                                : order[line] * shape_.channels + first_channel_;
      const int64_t start = rows() ? first_channel_ : piece_start;
      table_.offsets[i] = at * (rows() ? shape_.channels : shape_.spatial) + start;
      table_.bytes[i] = at * mask_bytes_per_line(shape_) + start / 8;
    }
    __syncthreads();
    line_ = first_line_;
    base_ = 0;
  }

  // Steps that cover the chunk.
  __device__ int steps() const {
    const int stride = plan_.lanes * kWidth;
    return (lines_ + line_step_ - 1) / line_step_ * ((columns_ + stride - 1) / stride);
  }

  // The first value of this thread's own channel in the open chunk; there must be one.
  __device__ int64_t first_of_own_channel() const {
    return table_.offsets[0] + threadIdx.x * (rows() ? 1 : shape_.spatial);
  }
  __device__ bool empty() const { return lines_ == 0; }

  __device__ Place next() {
    const int column = base_ + first_column_;
    const Place place = line_ < lines_ && column < columns_ ? Place(line_, base_) : Place();
    base_ += plan_.lanes * kWidth;
    if (base_ >= columns_) {
      base_ = 0;
      line_ += line_step_;
    }
    return place;
  }
  // Of the first value of a load, in x.
  __device__ int64_t offset(const Place& place) const {
    return table_.offsets[place.line()] + (own_offset_ + place.column());
  }
  // Of its byte, in the mask.
  __device__ int64_t byte(const Place& place) const {
    const int64_t line = table_.bytes[place.line()] + (rows() ? 0 : lane_channel_ * mask_bytes_per_line(shape_));
    return line + (place.column() + first_column_) / 8;
  }

 private:
  const MultiBatchNormShape& shape_;
  const MultiBatchNormPlan& plan_;
  Lines& table_;
  int64_t own_offset_;
  int first_channel_, first_column_, lane_channel_, first_line_, line_step_;
  int lines_ = 0, columns_ = 0, line_ = 0, base_ = 0;
};

// Loads that a thread has put aside in dynamic shared memory, for itself alone: no barrier, and no layout but its own.
template <typename T, int kWidth>
class Kept {
 public:
  // For so many loads a thread; 0: the launch gives no dynamic shared memory.
  __device__ explicit Kept(int count) : count_(count) {}
  // Whether there is room for the i-th load of every thread.
  __device__ bool holds(int i) const { return i < count_; }
  __device__ Vector<T, kWidth>& operator[](int i) {
    return reinterpret_cast<Vector<T, kWidth>*>(dynamic_shared())[i * kNormThreads + threadIdx.x];
  }

 private:
  int count_;
};

// Two sums that go together.
struct Sums {
  double first, second;
};
__device__ inline Sums operator+(const Sums& a, const Sums& b) { return {a.first + b.first, a.second + b.second}; }

constexpr int kSumsTable = 512;  // eight warps of 64 channels, or 256 groups

// Adds up what the threads of a block have for each value of a load; thread c gets the sums of channel c of the slab.
// The order is that of the lanes, then of the groups. `table` [kSumsTable] is shared memory, free for anyone before and
// after.
template <int kWidth>
__device__ Sums block_sums(const MultiBatchNormPlan& plan, bool rows, Sums (&own)[kWidth], Sums* table) {
  const int thread = static_cast<int>(threadIdx.x), channels = plan.block_channels;
  const auto add_lanes = [](Sums& sums, int lanes) {
    sums.first += __shfl_down_sync(kAllLanes, sums.first, lanes);
    sums.second += __shfl_down_sync(kAllLanes, sums.second, lanes);
  };
  __syncthreads();
  if (rows) {
    for (int lanes = kWarpSize / 2; lanes >= plan.lanes; lanes /= 2) {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) add_lanes(own[v], lanes);
    }
    if (lane_id() < plan.lanes) {
#pragma unroll
      for (int v = 0; v < kWidth; ++v) table[warp_id() * channels + lane_id() * kWidth + v] = own[v];
    }
  } else {
#pragma unroll
    for (int v = 1; v < kWidth; ++v) own[0] = own[0] + own[v];
    for (int lanes = plan.lanes / 2; lanes > 0; lanes /= 2) add_lanes(own[0], lanes);
    if (thread % plan.lanes == 0) table[thread / plan.lanes] = own[0];
  }
  __syncthreads();
  Sums total{0, 0};
  if (thread < channels) {
    const int rounds = rows ? kNormThreads / kWarpSize : kNormThreads / plan.lanes / channels;
    for (int round = 0; round < rounds; ++round) total = total + table[round * channels + thread];
  }
  return total;
}

MDPROP_ISA_END
