#include "tests/emulation_kernels.h"

#include "common/async_copy.cuh"
#include "common/cluster.cuh"
#include "common/device.cuh"
#include "common/launch.h"
#include "common/mma.cuh"
#include "common/vector.cuh"

// Clusters, barriers of copies and bulk copies need sm_90; the bodies are empty where a build also covers older cards.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define MDPROP_HAS_CLUSTERS 1
#endif

namespace mdprop::planted {
namespace {

struct Row {
  float values[kThreads];
};

template <bool kBarrier>
__global__ void reverse_kernel(const float* in, float* out) {
  auto& row = shared_storage<Row>();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * kThreads;
  row.values[threadIdx.x] = in[start + threadIdx.x];
  if (kBarrier) __syncthreads();
  out[start + threadIdx.x] = row.values[kThreads - 1 - threadIdx.x];
}

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_after_return_kernel() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void divergent_shuffle_kernel() {
  int value = lane_id();
  if (value < 16) {
    value = __shfl_xor_sync(kAllLanes, value, 1);
  } else {
    value = __shfl_down_sync(kAllLanes, value, 1);
  }
  device_check(value >= 0, "keeps the value alive");
}

__global__ void shuffle_from_outside_kernel() {
  if (lane_id() < 4) device_check(__shfl_sync(0xfu, lane_id(), 9) >= 0, "keeps the value alive");
}

struct Held {
  unsigned char bytes[kHeldBytes];
};

__global__ void empty_kernel() {}
__global__ void holding_kernel() { shared_storage<Held>().bytes[threadIdx.x] = 0; }

__global__ void order_dependent_sum_kernel(const float* in, float* sum) {
  auto* bits = reinterpret_cast<unsigned*>(sum);
  const float value = in[static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x];
  unsigned old = atomicOr(bits, 0u);
  for (unsigned seen = ~old; seen != old;) {
    seen = old;
    old = atomicCAS(bits, seen, __float_as_uint(__uint_as_float(seen) + value));
  }
}

__global__ void ordered_sum_kernel(const float* in, float* partials, unsigned* counter, float* sum) {
  const float partial = warp_sum(in[static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x]);
  if (lane_id() == 0) partials[blockIdx.x * (kThreads / kWarpSize) + warp_id()] = partial;
  __threadfence();
  __syncthreads();
  if (threadIdx.x != 0 || atomicAdd(counter, 1u) != gridDim.x - 1) return;
  __threadfence();
  float total = 0;
  for (unsigned i = 0; i < gridDim.x * (kThreads / kWarpSize); ++i) total += partials[i];
  *sum = total;
  *counter = 0;
}

__global__ void all_but_one_kernel(float* out) {
  if (threadIdx.x != 77) out[threadIdx.x] = 1.0f;
}

__global__ void shared_overrun_kernel(float* out) {
  auto& row = shared_storage<Row>();
  (&row.values[0])[threadIdx.x + 1] = 2.0f;
  __syncthreads();
  out[threadIdx.x] = row.values[threadIdx.x];
}

__global__ void global_overrun_kernel(float* out) { out[threadIdx.x + 1] = 3.0f; }

__global__ void global_overread_kernel(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

__global__ void misaligned_kernel(const float* in, float* out) { store_vector(out, load_vector<4>(in + 1)); }

__global__ void spin_kernel(unsigned* flag) {
  while (atomicOr(flag, 0u) == 0u) {
  }
}

__global__ void vote_for_ever_kernel(unsigned* flag) {
  while (__any_sync(kAllLanes, *flag == 0)) {
  }
}

__global__ void spin_alone_kernel(volatile unsigned* flag) {
  while (*flag == 0) {
  }
}

__global__ void refuse_kernel(int value) { device_check(value > 0, "value: expected > 0"); }

struct Stages {
  float values[2][kThreads * 4];
};

template <bool kWait>
__global__ void copy_in_groups_kernel(const float* in, float* out, int count) {
  auto& stages = shared_storage<Stages>();
  const auto copy_stage = [&](int i) {
    copy_async<16>(&stages.values[i % 2][threadIdx.x * 4], in + (int64_t{i} * kThreads + threadIdx.x) * 4, i < count);
    commit_copies();
  };
  copy_stage(0);
  for (int i = 0; i < count; ++i) {
    copy_stage(i + 1);
    if (kWait) wait_copies<1>();
    __syncthreads();
    const int mirrored = kThreads - 1 - static_cast<int>(threadIdx.x);  // read what another thread has copied
    store_vector(out + (int64_t{i} * kThreads + mirrored) * 4, load_vector<4>(&stages.values[i % 2][mirrored * 4]));
    __syncthreads();
  }
  wait_copies<0>();
}

struct Bulk {
  alignas(16) float values[kThreads * 4];
  CopyBarrier barrier;
};

__global__ void copy_by_bulk_kernel([[maybe_unused]] const float* in, [[maybe_unused]] float* out,
                                    [[maybe_unused]] int count) {
#ifdef MDPROP_HAS_CLUSTERS
  auto& bulk = shared_storage<Bulk>();
  if (threadIdx.x == 0) init_barrier(bulk.barrier, 1);
  __syncthreads();
  for (int i = 0; i < count; ++i) {
    const int64_t start = int64_t{i} * kThreads * 4;
    if (threadIdx.x == 0) {
      arrive(bulk.barrier, sizeof(bulk.values));
      copy_bulk(bulk.values, in + start, sizeof(bulk.values), bulk.barrier);
    }
    wait_barrier(bulk.barrier, i % 2);
    store_vector(out + start + threadIdx.x * 4, load_vector<4>(&bulk.values[threadIdx.x * 4]));
    __syncthreads();
  }
#endif
}

struct Number {
  float value;
};

template <bool kBarrier>
__global__ void cluster_sum_kernel([[maybe_unused]] float* out) {
#ifdef MDPROP_HAS_CLUSTERS
  auto& number = shared_storage<Number>();
  if (threadIdx.x == 0) number.value = static_cast<float>(blockIdx.x);
  if (kBarrier) cluster_barrier();
  float sum = 0;
  for (unsigned rank = 0; rank < cluster_size(); ++rank) sum += distributed_shared(&number, rank)->value;
  if (threadIdx.x == cluster_rank()) out[blockIdx.x] = sum;
  cluster_barrier();
#endif
}

__global__ void grid_sum_kernel(float* values, float* out) {
  if (threadIdx.x == 0) values[blockIdx.x] = static_cast<float>(blockIdx.x);
  grid_barrier();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += values[i];
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

struct Operands {
  alignas(16) uint16_t a[16][16], b_transposed[8][16];
};

__global__ void product_kernel(const uint16_t* a, const uint16_t* b_transposed, float* d) {
  auto& operands = shared_storage<Operands>();
  const int lane = lane_id();
  for (int i = lane; i < 256; i += kWarpSize) operands.a[i / 16][i % 16] = a[i];
  for (int i = lane; i < 128; i += kWarpSize) operands.b_transposed[i / 16][i % 16] = b_transposed[i];
  __syncwarp();
  uint32_t a_fragment[4], b_tiles[4];
  ldmatrix_x4(a_fragment, &operands.a[lane % 16][lane / 16 * 8]);
  ldmatrix_x4(b_tiles, &operands.b_transposed[lane % 8][lane / 8 % 2 * 8]);
  const uint32_t b_fragment[2] = {b_tiles[0], b_tiles[1]};
  float sums[4] = {};
  mma_bf16(sums, a_fragment, b_fragment);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

}  // namespace

void reverse(const float* in, float* out, int blocks) {
  launch<reverse_kernel<true>>(blocks, kThreads, 0, nullptr, in, out);
}
void reverse_without_barrier(const float* in, float* out, int blocks) {
  launch<reverse_kernel<false>>(blocks, kThreads, 0, nullptr, in, out);
}
void divergent_barrier() { launch<divergent_barrier_kernel>(1, 64, 0, nullptr); }
void barrier_after_return() { launch<barrier_after_return_kernel>(2, 8, 0, nullptr); }
void divergent_shuffle() { launch<divergent_shuffle_kernel>(1, 32, 0, nullptr); }
void shuffle_from_outside() { launch<shuffle_from_outside_kernel>(1, 32, 0, nullptr); }
void order_dependent_sum(const float* in, float* sum, int blocks) {
  launch<order_dependent_sum_kernel>(blocks, kThreads, 0, nullptr, in, sum);
}
void ordered_sum(const float* in, float* partials, unsigned* counter, float* sum, int blocks) {
  launch<ordered_sum_kernel>(blocks, kThreads, 0, nullptr, in, partials, counter, sum);
}
void all_but_one(float* out) { launch<all_but_one_kernel>(1, kThreads, 0, nullptr, out); }
void shared_overrun(float* out) { launch<shared_overrun_kernel>(1, kThreads, 0, nullptr, out); }
void global_overrun(float* out) { launch<global_overrun_kernel>(1, kThreads, 0, nullptr, out); }
void global_overread(const float* in, float* out) { launch<global_overread_kernel>(1, kThreads, 0, nullptr, in, out); }
void misaligned(const float* in, float* out) { launch<misaligned_kernel>(1, 1, 0, nullptr, in, out); }
void launch_empty(unsigned blocks, unsigned threads, size_t shared) {
  launch<empty_kernel>(blocks, threads, shared, nullptr);
}
void launch_together(unsigned blocks, size_t shared) { launch_cooperative<empty_kernel>(blocks, 256, shared, nullptr); }
void launch_holding(size_t shared) { launch<holding_kernel>(1, 1, shared, nullptr); }
void spin(unsigned* flag) { launch<spin_kernel>(1, 2, 0, nullptr, flag); }
void vote_for_ever(unsigned* flag) { launch<vote_for_ever_kernel>(1, 32, 0, nullptr, flag); }
void spin_alone(volatile unsigned* flag) { launch<spin_alone_kernel>(1, 2, 0, nullptr, flag); }
void refuse(int value) { launch<refuse_kernel>(1, 1, 0, nullptr, value); }
void copy_in_groups(const float* in, float* out, int blocks) {
  launch<copy_in_groups_kernel<true>>(1, kThreads, 0, nullptr, in, out, blocks);
}
void copy_without_wait(const float* in, float* out, int blocks) {
  launch<copy_in_groups_kernel<false>>(1, kThreads, 0, nullptr, in, out, blocks);
}
void copy_by_bulk(const float* in, float* out, int blocks) {
  launch<copy_by_bulk_kernel>(1, kThreads, 0, nullptr, in, out, blocks);
}
void cluster_sum(float* out, int blocks) {
  launch_shape<cluster_sum_kernel<true>>({blocks, kThreads, 0, 4}, nullptr, out);
}
void cluster_without_barrier(float* out, int blocks) {
  launch_shape<cluster_sum_kernel<false>>({blocks, kThreads, 0, 4}, nullptr, out);
}
void grid_sum(float* values, float* out, int blocks) {
  launch_cooperative<grid_sum_kernel>(blocks, kThreads, 0, nullptr, values, out);
}
void product(const uint16_t* a, const uint16_t* b_transposed, float* d) {
  launch<product_kernel>(1, kWarpSize, 0, nullptr, a, b_transposed, d);
}

}  // namespace mdprop::planted
