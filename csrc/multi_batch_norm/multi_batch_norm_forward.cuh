// Forward kernels of multi_batch_norm. Streaming: norm_statistics_kernel reads x and leaves the moments of each chunk,
// norm_join_moments_kernel makes mean and var of them, then norm_apply_kernel reads x again, last chunk first, while
// the end of it is still in the second-level cache. Resident: norm_resident_kernel alone, whose blocks keep their
// values in shared memory between the two.
#pragma once

#include "multi_batch_norm/multi_batch_norm_join.cuh"
#include "multi_batch_norm/multi_batch_norm_moments.cuh"

MDPROP_ISA_BEGIN

template <typename T>
struct NormForwardJob {
  MultiBatchNormForwardArgs<T> args;  // y null: only the statistics are wanted
  MultiBatchNormPlan plan;
  double* moments;   // [B, 2C + 1] or null
  double* partials;  // [max_chunks, C, 2] mean and m2 of each chunk
};

template <typename Acc>
struct NormForwardShared {
  Lines lines;
  Sums table[kSumsTable];
  Acc shifts[kNormThreads];
  Affine<Acc> affine[kNormThreads];
};

// Reads the first value of each channel in the open chunk as the shift of its sums.
template <typename T, int kWidth>
__device__ void choose_shifts(const NormForwardJob<T>& job, const Walk<kWidth>& walk,
                              NormForwardShared<acc_t<T>>& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  if (walk.owns_channel()) {
    shared.shifts[thread] = walk.empty() ? acc_t<T>(0) : widen(job.args.x[walk.first_of_own_channel()]);
  }
  __syncthreads();
}

template <typename T>
__device__ void store_statistics(const NormForwardJob<T>& job, const Moments& moments, int64_t branch,
                                 int64_t channel) {
  const int64_t channels = job.args.shape.channels, at = branch * channels + channel;
  if (job.moments != nullptr) {
    if (channel == 0) job.moments[count_entry(channels, branch)] = moments.count;
    job.moments[first_entry(channels, branch, channel)] = moments.mean;
    job.moments[second_entry(channels, branch, channel)] = moments.m2;
  } else {
    job.args.mean[at] = static_cast<acc_t<T>>(moments.mean);
    job.args.var[at] = static_cast<acc_t<T>>(moments.count > 0 ? moments.m2 / moments.count : 0);
  }
}

// The moments of the open chunk: thread c gets those of channel c of the slab. What is loaded is kept as far as there
// is room, behind the `before` loads of earlier chunks.
template <typename T, int kWidth>
__device__ Moments chunk_moments(const NormForwardJob<T>& job, const ChunkPlace& place, Walk<kWidth>& walk,
                                 Kept<T, kWidth>& kept, int before, NormForwardShared<acc_t<T>>& shared) {
  constexpr int kCount = kLoads<T, kWidth, 1>;
  choose_shifts(job, walk, shared);
  ColumnMoments<acc_t<T>, kWidth> moments;
#pragma unroll 1
  for (int step = 0; step < walk.steps(); step += kCount) {
    Place places[kCount];
    Vector<T, kWidth> values[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      places[u] = walk.next();
      if (places[u].valid()) values[u] = load_vector<kWidth>(job.args.x + walk.offset(places[u]));
    }
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (places[u].valid() && kept.holds(before + step + u)) kept[before + step + u] = values[u];
    }
    moments.add(walk, shared.shifts, places, values);
  }
  Sums own[kWidth];
#pragma unroll
  for (int v = 0; v < kWidth; ++v) own[v] = moments.sums(v);
  const Sums sums = block_sums(job.plan, walk.rows(), own, shared.table);
  const double shift = walk.owns_channel() ? shared.shifts[threadIdx.x] : 0;
  return moments_of(sums, shift, static_cast<double>(chunk_values(job.args.shape, job.plan, place)));
}

// A block a chunk and slab, which leaves the moments of its part.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kStreamingBlocks)
    norm_statistics_kernel(const __grid_constant__ NormForwardJob<T> job) {
  const auto& shape = job.args.shape;
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormForwardShared<acc_t<T>>>();
  const int number = blockIdx.x / plan.slabs, slab = blockIdx.x % plan.slabs;
  const ChunkPlace place = find_chunk(shape, plan, number);
  if (place.branch == shape.branches) return;
  Walk<kWidth> walk(shape, plan, slab, shared.lines);
  Kept<T, kWidth> kept(0);
  walk.open(place);
  const Moments part = chunk_moments(job, place, walk, kept, 0, shared);
  if (walk.owns_channel()) {
    double* to = job.partials + 2 * (int64_t{number} * shape.channels + walk.own_channel());
    to[0] = part.mean;
    to[1] = part.m2;
  }
}

// A block kJoinChannels channels of a branch: mean and var of the moments of its chunks, by sums about the mean of the
// first one, which take no division a chunk.
template <typename T>
__global__ void __launch_bounds__(kNormThreads, kJoinBlocks)
    norm_join_moments_kernel(const __grid_constant__ NormForwardJob<T> job) {
  const auto& shape = job.args.shape;
  const JoinPlace place = join_place(shape, job.plan);
  const double* parts = job.partials + 2 * (int64_t{place.first} * shape.channels + place.channel);
  const double centre = place.valid ? parts[0] : 0;
  const Sums total = join_chunks(place, [&](int chunk) {
    const double* part = parts + 2 * (chunk * shape.channels);
    const double offset = part[0] - centre;
    const auto count = static_cast<double>(chunk_values(shape, job.plan, {place.branch, chunk, 0}));
    return Sums{count * offset, fma(count * offset, offset, part[1])};
  });
  if (!place.owner) return;
  store_statistics(job, moments_of(total, centre, static_cast<double>(count_of(shape, place.branch))), place.branch,
                   place.channel);
}

// Sets the bits of the mask where a result is above 0; the lanes that share a byte join theirs. For whole warps.
template <typename T, int kWidth>
__device__ void store_bits(uint8_t* mask, const Walk<kWidth>& walk, const Place& place,
                           const Vector<T, kWidth>& result) {
  constexpr int kSharing = 8 / kWidth;
  unsigned bits = 0;
#pragma unroll
  for (int v = 0; v < kWidth; ++v) bits |= (place.valid() && widen(result[v]) > 0 ? 1u : 0u) << v;
  bits <<= kWidth * (lane_id() % kSharing);
#pragma unroll
  for (int lanes = 1; lanes < kSharing; lanes *= 2) bits |= __shfl_xor_sync(kAllLanes, bits, lanes);
  if (place.valid() && lane_id() % kSharing == 0) mask[walk.byte(place)] = static_cast<uint8_t>(bits);
}

// Turns loaded values into results. The columns are the outer loop: then one affine map at a time is in registers.
template <typename T, int kWidth, int kCount>
__device__ void normalise(const MultiBatchNormForwardArgs<T>& args, const Walk<kWidth>& walk,
                          const Affine<acc_t<T>>* affine, const Place (&places)[kCount],
                          Vector<T, kWidth> (&values)[kCount]) {
  Vector<T, kWidth> residuals[kCount];
  if (args.residual != nullptr) {
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (places[u].valid()) residuals[u] = load_streaming<kWidth>(args.residual + walk.offset(places[u]));
    }
  }
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    const Affine<acc_t<T>> map = affine[walk.channel(v)];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (!places[u].valid()) continue;
      acc_t<T> value = map(widen(values[u][v]));
      if (args.residual != nullptr) value += widen(residuals[u][v]);
      values[u][v] = narrow<T>(args.shape.relu ? relu(value) : value);
    }
  }
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    if (places[u].valid()) store_streaming(args.y + walk.offset(places[u]), values[u]);
    if (args.mask != nullptr) store_bits(args.mask, walk, places[u], values[u]);
  }
}

// Writes the results of the open chunk, from what was kept as far as that goes.
template <typename T, int kWidth>
__device__ void apply_chunk(const NormForwardJob<T>& job, Walk<kWidth>& walk, Kept<T, kWidth>& kept, int before,
                            const NormForwardShared<acc_t<T>>& shared) {
  constexpr int kCount = kLoads<T, kWidth, 2>;
#pragma unroll 1
  for (int step = 0; step < walk.steps(); step += kCount) {
    Place places[kCount];
    Vector<T, kWidth> values[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      places[u] = walk.next();
      if (!places[u].valid()) continue;
      values[u] = kept.holds(before + step + u) ? kept[before + step + u]
                                                : load_streaming<kWidth>(job.args.x + walk.offset(places[u]));
    }
    normalise(job.args, walk, shared.affine, places, values);
  }
}

// The affine maps of the slab's channels, for everyone after the next barrier.
template <typename T, int kWidth>
__device__ void load_affine(const MultiBatchNormForwardArgs<T>& args, int branch, const Walk<kWidth>& walk,
                            NormForwardShared<acc_t<T>>& shared) {
  if (!walk.owns_channel()) return;
  shared.affine[threadIdx.x] = affine_at<acc_t<T>>(args.weight, args.bias, args.mean, args.var, args.shape.eps,
                                                   branch * args.shape.channels + walk.own_channel());
}

// A block a chunk and slab, with mean and var from the tables.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kStreamingBlocks)
    norm_apply_kernel(const __grid_constant__ NormForwardJob<T> job) {
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormForwardShared<acc_t<T>>>();
  const int block = gridDim.x - 1 - blockIdx.x;
  const ChunkPlace place = find_chunk(job.args.shape, plan, block / plan.slabs);
  if (place.branch == job.args.shape.branches) return;
  Walk<kWidth> walk(job.args.shape, plan, block % plan.slabs, shared.lines);
  Kept<T, kWidth> kept(0);
  load_affine(job.args, place.branch, walk, shared);
  walk.open(place);
  apply_chunk(job, walk, kept, 0, shared);
}

// A block a branch and slab, which computes mean and var first.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kResidentBlocks)
    norm_resident_kernel(const __grid_constant__ NormForwardJob<T> job) {
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormForwardShared<acc_t<T>>>();
  const int branch = blockIdx.x / plan.slabs, chunks = chunks_of(job.args.shape, plan, branch);
  Walk<kWidth> walk(job.args.shape, plan, blockIdx.x % plan.slabs, shared.lines);
  Kept<T, kWidth> kept(plan.kept);
  int before = 0;
  Moments moments;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    walk.open({branch, chunk, 0});
    merge(moments, chunk_moments(job, {branch, chunk, 0}, walk, kept, before, shared));
    before += walk.steps();
  }
  if (walk.owns_channel()) store_statistics(job, moments, branch, walk.own_channel());
  if (job.args.y == nullptr) return;
  load_affine(job.args, branch, walk, shared);
  before = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    walk.open({branch, chunk, 0});
    apply_chunk(job, walk, kept, before, shared);
    before += walk.steps();
  }
}

MDPROP_ISA_END
