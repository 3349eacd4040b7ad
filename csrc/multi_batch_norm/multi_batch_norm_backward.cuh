// Backward kernels of multi_batch_norm, in the two routes of the forward ones. Streaming: norm_sums_kernel,
// norm_join_sums_kernel, norm_gradient_kernel. Resident: norm_resident_gradient_kernel alone.
#pragma once

#include "multi_batch_norm/multi_batch_norm_join.cuh"
#include "multi_batch_norm/multi_batch_norm_walk.cuh"

MDPROP_ISA_BEGIN

template <typename T>
struct NormBackwardJob {
  MultiBatchNormBackwardArgs<T> args;
  MultiBatchNormPlan plan;
  double* sums;      // [B, 2C + 1] of this batch
  double* partials;  // [max_chunks, C, 2] sums of each chunk
};

template <typename Acc>
struct NormBackwardShared {
  Lines lines;
  Sums table[kSumsTable];
  Affine<Acc> affine[kNormThreads];
  InputGradient<Acc> formulas[kNormThreads];
};

// The affine maps of the slab's channels, for everyone after the next barrier.
template <typename T, int kWidth>
__device__ void load_affine(const MultiBatchNormBackwardArgs<T>& args, int branch, const Walk<kWidth>& walk,
                            NormBackwardShared<acc_t<T>>& shared) {
  if (!walk.owns_channel()) return;
  shared.affine[threadIdx.x] = affine_at<acc_t<T>>(args.weight, args.bias, args.mean, args.var, args.shape.eps,
                                                   branch * args.shape.channels + walk.own_channel());
}

// The next loads of gradients, without what relu cut off, and of inputs, unless nobody needs them.
template <typename T, int kWidth, int kCount>
__device__ void load_step(const MultiBatchNormBackwardArgs<T>& args, bool needs_x, const Affine<acc_t<T>>* affine,
                          Walk<kWidth>& walk, Place (&places)[kCount], Vector<T, kWidth> (&grads)[kCount],
                          Vector<T, kWidth> (&inputs)[kCount]) {
  const bool recomputed = args.shape.relu && args.mask == nullptr;
  unsigned bits[kCount];
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    places[u] = walk.next();
    if (!places[u].valid()) continue;
    const int64_t offset = walk.offset(places[u]);
    grads[u] = load_vector<kWidth>(args.grad + offset);
    if (needs_x || recomputed) inputs[u] = load_vector<kWidth>(args.x + offset);
    if (args.mask != nullptr) bits[u] = args.mask[walk.byte(places[u])] >> kWidth * (lane_id() % (8 / kWidth));
  }
  if (!args.shape.relu) return;
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    const Affine<acc_t<T>> map = affine[walk.channel(v)];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (!places[u].valid()) continue;
      const bool passes = recomputed ? map(widen(inputs[u][v])) > 0 : (bits[u] >> v & 1) != 0;
      if (!passes) grads[u][v] = T{};
    }
  }
}

// A thread's sums of g and of g * (x - mean) within a chunk, a pair a column.
template <typename Acc, int kWidth>
class ColumnSums {
 public:
  __device__ ColumnSums() {
#pragma unroll
    for (int v = 0; v < kWidth; ++v) grads_[v] = products_[v] = 0;
  }

  template <typename T, int kCount>
  __device__ void add(const Walk<kWidth>& walk, const Affine<Acc>* affine, const Place (&places)[kCount],
                      const Vector<T, kWidth> (&grads)[kCount], const Vector<T, kWidth> (&inputs)[kCount]) {
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      const Acc mean = affine[walk.channel(v)].mean;
#pragma unroll
      for (int u = 0; u < kCount; ++u) {
        if (!places[u].valid()) continue;
        const Acc grad = widen(grads[u][v]);
        grads_[v] += grad;
        products_[v] = fma(grad, widen(inputs[u][v]) - mean, products_[v]);
      }
    }
  }

  __device__ Sums sums(int v) const { return {static_cast<double>(grads_[v]), static_cast<double>(products_[v])}; }

 private:
  Acc grads_[kWidth], products_[kWidth];
};

// The sums over the open chunk: thread c gets those of channel c of the slab. What is loaded is kept as far as there is
// room, behind the `before` pairs of earlier chunks.
template <typename T, int kWidth>
__device__ Sums chunk_sums(const NormBackwardJob<T>& job, Walk<kWidth>& walk, Kept<T, kWidth>& kept, int before,
                           NormBackwardShared<acc_t<T>>& shared) {
  constexpr int kCount = kLoads<T, kWidth, 2>;
  ColumnSums<acc_t<T>, kWidth> sums;
#pragma unroll 1
  for (int step = 0; step < walk.steps(); step += kCount) {
    Place places[kCount];
    Vector<T, kWidth> grads[kCount], inputs[kCount];
    load_step(job.args, true, shared.affine, walk, places, grads, inputs);
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (!places[u].valid() || !kept.holds(2 * (before + step + u) + 1)) continue;
      kept[2 * (before + step + u)] = grads[u];
      kept[2 * (before + step + u) + 1] = inputs[u];
    }
    sums.add(walk, shared.affine, places, grads, inputs);
  }
  Sums own[kWidth];
#pragma unroll
  for (int v = 0; v < kWidth; ++v) own[v] = sums.sums(v);
  return block_sums(job.plan, walk.rows(), own, shared.table);
}

// What the caller wants of the sums of one (branch, channel).
template <typename T>
__device__ void store_sums(const NormBackwardJob<T>& job, const Sums& sums, int64_t branch, int64_t channel) {
  const auto& args = job.args;
  const int64_t channels = args.shape.channels, at = branch * channels + channel;
  if (channel == 0) job.sums[count_entry(channels, branch)] = static_cast<double>(count_of(args.shape, branch));
  job.sums[first_entry(channels, branch, channel)] = sums.first;
  job.sums[second_entry(channels, branch, channel)] = sums.second;
  if (args.grad_weight != nullptr) {
    args.grad_weight[at] = static_cast<acc_t<T>>(sums.second * inverse_at(args.var, at, args.shape.eps));
    args.grad_bias[at] = static_cast<acc_t<T>>(sums.first);
  }
}

// A block a chunk and slab, which leaves the sums of its part.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kStreamingBlocks)
    norm_sums_kernel(const __grid_constant__ NormBackwardJob<T> job) {
  const auto& shape = job.args.shape;
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormBackwardShared<acc_t<T>>>();
  const int number = blockIdx.x / plan.slabs, slab = blockIdx.x % plan.slabs;
  const ChunkPlace place = find_chunk(shape, plan, number);
  if (place.branch == shape.branches) return;
  Walk<kWidth> walk(shape, plan, slab, shared.lines);
  Kept<T, kWidth> kept(0);
  load_affine(job.args, place.branch, walk, shared);
  walk.open(place);
  const Sums part = chunk_sums(job, walk, kept, 0, shared);
  if (walk.owns_channel()) {
    double* to = job.partials + 2 * (int64_t{number} * shape.channels + walk.own_channel());
    to[0] = part.first;
    to[1] = part.second;
  }
}

// A block kJoinChannels channels of a branch: adds up the sums of its chunks.
template <typename T>
__global__ void __launch_bounds__(kNormThreads, kJoinBlocks)
    norm_join_sums_kernel(const __grid_constant__ NormBackwardJob<T> job) {
  const int64_t channels = job.args.shape.channels;
  const JoinPlace place = join_place(job.args.shape, job.plan);
  const double* parts = job.partials + 2 * (int64_t{place.first} * channels + place.channel);
  const Sums total = join_chunks(place, [&](int chunk) {
    const double* part = parts + 2 * (chunk * channels);
    return Sums{part[0], part[1]};
  });
  if (place.owner) store_sums(job, total, place.branch, place.channel);
}

template <typename T, int kWidth, int kCount>
__device__ void store_gradients(const MultiBatchNormBackwardArgs<T>& args, const Walk<kWidth>& walk,
                                const NormBackwardShared<acc_t<T>>& shared, const Place (&places)[kCount],
                                const Vector<T, kWidth> (&grads)[kCount], Vector<T, kWidth> (&inputs)[kCount]) {
#pragma unroll
  for (int v = 0; v < kWidth; ++v) {
    const Affine<acc_t<T>> map = shared.affine[walk.channel(v)];
    const InputGradient<acc_t<T>> formula = shared.formulas[walk.channel(v)];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (!places[u].valid()) continue;
      const acc_t<T> grad = widen(grads[u][v]);
      inputs[u][v] = narrow<T>(args.shape.training ? formula(grad, widen(inputs[u][v]), map) : map.scale * grad);
    }
  }
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    if (!places[u].valid()) continue;
    store_streaming(args.grad_x + walk.offset(places[u]), inputs[u]);
    if (args.grad_residual != nullptr) store_streaming(args.grad_residual + walk.offset(places[u]), grads[u]);
  }
}

// The coefficients of the gradient of the slab's channels, for everyone after the next barrier. A thread reads no sums
// of its own kernel but those that it wrote itself.
template <typename T, int kWidth>
__device__ void load_formulas(const NormBackwardJob<T>& job, int branch, const Walk<kWidth>& walk,
                              NormBackwardShared<acc_t<T>>& shared) {
  const auto& shape = job.args.shape;
  if (!shape.training || !walk.owns_channel()) return;
  const double* total = job.args.total_sums;
  const double* sums = total == nullptr ? job.sums : total;
  const int64_t channels = shape.channels, channel = walk.own_channel();
  const double count =
      total == nullptr ? static_cast<double>(count_of(shape, branch)) : total[count_entry(channels, branch)];
  shared.formulas[threadIdx.x] =
      input_gradient(sums[first_entry(channels, branch, channel)], sums[second_entry(channels, branch, channel)], count,
                     job.args.var[branch * channels + channel], shape.eps);
}

// Writes the gradients of the open chunk, from what was kept as far as that goes.
template <typename T, int kWidth>
__device__ void gradient_chunk(const NormBackwardJob<T>& job, Walk<kWidth>& walk, Kept<T, kWidth>& kept, int before,
                               const NormBackwardShared<acc_t<T>>& shared) {
  constexpr int kCount = kLoads<T, kWidth, 2>;
#pragma unroll 1
  for (int step = 0; step < walk.steps(); step += kCount) {
    Place places[kCount];
    Vector<T, kWidth> grads[kCount], inputs[kCount];
    if (kept.holds(2 * (before + step + kCount) - 1)) {
#pragma unroll
      for (int u = 0; u < kCount; ++u) {
        places[u] = walk.next();
        if (!places[u].valid()) continue;
        grads[u] = kept[2 * (before + step + u)];
        inputs[u] = kept[2 * (before + step + u) + 1];
      }
    } else {
      load_step(job.args, job.args.shape.training, shared.affine, walk, places, grads, inputs);
    }
    store_gradients(job.args, walk, shared, places, grads, inputs);
  }
}

// A block a chunk and slab, last chunk first, with sums from the tables. Where statistics are constants, neither sums
// nor x are read.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kStreamingBlocks)
    norm_gradient_kernel(const __grid_constant__ NormBackwardJob<T> job) {
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormBackwardShared<acc_t<T>>>();
  const int block = gridDim.x - 1 - blockIdx.x;
  const ChunkPlace place = find_chunk(job.args.shape, plan, block / plan.slabs);
  if (place.branch == job.args.shape.branches) return;
  Walk<kWidth> walk(job.args.shape, plan, block % plan.slabs, shared.lines);
  Kept<T, kWidth> kept(0);
  load_affine(job.args, place.branch, walk, shared);
  load_formulas(job, place.branch, walk, shared);
  walk.open(place);
  gradient_chunk(job, walk, kept, 0, shared);
}

// A block a branch and slab, which computes the sums first.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads, kResidentBlocks)
    norm_resident_gradient_kernel(const __grid_constant__ NormBackwardJob<T> job) {
  const auto& plan = job.plan;
  auto& shared = shared_storage<NormBackwardShared<acc_t<T>>>();
  const int branch = blockIdx.x / plan.slabs, chunks = chunks_of(job.args.shape, plan, branch);
  Walk<kWidth> walk(job.args.shape, plan, blockIdx.x % plan.slabs, shared.lines);
  Kept<T, kWidth> kept(2 * plan.kept);
  int before = 0;
  Sums total{0, 0};
  load_affine(job.args, branch, walk, shared);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    walk.open({branch, chunk, 0});
    total = total + chunk_sums(job, walk, kept, before, shared);
    before += walk.steps();
  }
  if (walk.owns_channel()) store_sums(job, total, branch, walk.own_channel());
  if (job.args.grad_x == nullptr) return;
  load_formulas(job, branch, walk, shared);
  before = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    walk.open({branch, chunk, 0});
    gradient_chunk(job, walk, kept, before, shared);
    before += walk.steps();
  }
}

MDPROP_ISA_END
