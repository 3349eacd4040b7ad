// pgd_step on a card. Without momentum linf is one pass. Otherwise a sample of some thousand values stays in the
// shared memory of a block, so that everything is read once; a larger one is streamed for every sum by a team of
// blocks.
#include "pgd_step/pgd_step.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "common/device.cuh"
#include "common/launch.h"
#include "common/vector.cuh"
#include "pgd_step/pgd_step_math.h"
#include "pgd_step/pgd_step_norms.cuh"
#include "pgd_step/pgd_step_plan.h"
#include "pgd_step/pgd_step_runs.cuh"
#include "pgd_step/pgd_step_sample.cuh"
#include "pgd_step/pgd_step_target.h"

namespace mdprop {
namespace {

constexpr int kLinfThreads = 256;
constexpr int kLinfBlocks = 4;  // a multiprocessor holds: enough loads to keep the memory busy

// How samples share out the blocks of linf: small ones several to a block, large ones several blocks each.
struct LinfShape {
  int threads;               // of a block for one sample: a power of two
  unsigned blocks_a_sample;  // 1 unless threads is kLinfThreads
  bool vector;
};

// One thread a run: three loads of 16 bytes are then under way in each of the many threads of a multiprocessor.
template <typename T, typename Target>
__global__ void __launch_bounds__(kLinfThreads, kLinfBlocks)
    pgd_linf_kernel(const __grid_constant__ PgdStepArgs<T> args, Target target, LinfShape shape) {
  const int thread = static_cast<int>(threadIdx.x) % shape.threads;
  const int64_t sample = static_cast<int64_t>(blockIdx.x / shape.blocks_a_sample) * (kLinfThreads / shape.threads) +
                         threadIdx.x / static_cast<unsigned>(shape.threads);
  if (sample >= args.samples) return;
  const RunPlace place = run_place<T>(blockIdx.x % shape.blocks_a_sample, shape.threads, thread, shape.vector);
  if (!is_active(args, sample)) return store_x(args, target, sample, place);
  const SampleOptions<T> options(args, sample);
  const InputRun<T> run = complete_run(args, sample, place, load_raw<true>(args, args.grad, sample, place));
  typename Target::Out results[kRun<T>];
  for (int k = 0; k < kRun<T>; ++k) {
    const PgdValue<acc_t<T>> value = run.value(k);
    results[k] = linf_value<typename Target::Out, Target::kExact>(value.x, value.grad, value.origin, options.step,
                                                                  options.radius, value.lower, value.upper);
  }
  store_results(args, target, sample, place, run.shown, results);
}

// Teams of plan.team_size blocks, next to each other, take every count()th sample; with more than one block, the launch
// is cooperative, and a team without a sample left takes part in the barriers.
template <PgdNorm kNorm, typename T, typename Target>
__global__ void __launch_bounds__(kTeamThreads, kTeamBlocks)
    pgd_sample_kernel(const __grid_constant__ PgdStepArgs<T> args, Target target,
                      const __grid_constant__ SamplePlan plan) {
  Team team(args.workspace, plan.parts, plan.team_size);
  for (int64_t first = 0; first < args.samples; first += team.count()) {
    Sample<T> sample(args, plan, team, first + team.number());
    step_sample<kNorm>(args, target, plan, team, sample);
  }
}

// Whether every pointer can be read in whole runs.
template <typename T, typename Target>
bool runs_are_vectors(const PgdStepArgs<T>& args, Target target) {
  const auto aligned = [](const auto* pointer) {
    const size_t bytes = sizeof(*pointer) * kRun<T>;
    return pointer == nullptr || is_aligned(pointer, std::min<size_t>(bytes, 16));
  };
  return args.sample_size % kRun<T> == 0 && aligned(args.x) && aligned(args.grad) && aligned(args.origin) &&
         aligned(args.origin_bytes) && aligned(args.velocity) && aligned(target.out) && aligned(args.lower_bounds) &&
         aligned(args.upper_bounds) && aligned(args.mask);
}

unsigned grid_size(int64_t blocks) {
  if (blocks >= int64_t{1} << 31) throw std::runtime_error("pgd_step: more than 2^31 blocks of values");
  return static_cast<unsigned>(blocks);
}

template <typename T, typename Target>
void run_linf(const PgdStepArgs<T>& args, Target target, bool vector, void* stream) {
  const int64_t runs = (args.sample_size + kRun<T> - 1) / kRun<T>;
  LinfShape shape{1, 1, vector};
  while (shape.threads < kLinfThreads && shape.threads < runs) shape.threads *= 2;
  const int64_t samples_a_block = kLinfThreads / shape.threads;
  shape.blocks_a_sample = grid_size((runs + shape.threads - 1) / shape.threads);
  const int64_t blocks = (args.samples + samples_a_block - 1) / samples_a_block * shape.blocks_a_sample;
  launch<pgd_linf_kernel<T, Target>>(grid_size(blocks), kLinfThreads, 0, stream, args, target, shape);
}

template <PgdNorm kNorm, typename T, typename Target>
void run_samples(const PgdStepArgs<T>& args, Target target, bool vector, void* stream) {
  const int64_t parts = count_parts(args.sample_size);
  const int64_t runs = (args.sample_size + kRun<T> - 1) / kRun<T>;
  const int64_t warps = std::min<int64_t>((runs + kWarpSize - 1) / kWarpSize, kTeamThreads / kWarpSize);
  const auto threads = static_cast<unsigned>(warps * kWarpSize);
  const int64_t chunks = (runs + threads - 1) / threads, chunks_a_part = (chunks + parts - 1) / parts;
  const int64_t resident_blocks = int64_t{kTeamBlocks} * multiprocessor_count();
  const int64_t memory = shared_memory_share(kTeamBlocks) - static_cast<int64_t>(sizeof(WarpSums));
  const int64_t input_bytes = args.sample_size * (2 * sizeof(T) + (args.origin == nullptr ? 1 : sizeof(T)));
  const int64_t cached_samples = (l2_cache_bytes() / 4 * 3 + resident_blocks * memory) / input_bytes;
  const int64_t team = choose_team_size(args.samples, parts, resident_blocks, cached_samples);
  const int64_t own_chunks = chunks_a_part * ((parts + team - 1) / team);
  const int64_t slot_bytes = int64_t{kSlotBytes<T>} * threads;
  const bool guesses = kNorm == PgdNorm::kL1 && chunks * slot_bytes > kGuessFrom;
  const int64_t guess_bytes = guesses ? kGuessBytes : 0;
  const int64_t cached = std::min(own_chunks, (memory - guess_bytes) / slot_bytes);
  const auto shared = static_cast<size_t>(cached * slot_bytes + guess_bytes);
  const SamplePlan plan{chunks,  parts, chunks_a_part, static_cast<int>(team), static_cast<int>(cached),
                        guesses, vector};
  if (team == 1) {
    launch<pgd_sample_kernel<kNorm, T, Target>>(grid_size(args.samples), threads, shared, stream, args, target, plan);
  } else {
    const int64_t blocks = team * count_teams(args.samples, team, resident_blocks);
    cuda_zero(args.workspace, kCounterBytes, stream);
    launch_cooperative<pgd_sample_kernel<kNorm, T, Target>>(grid_size(blocks), threads, shared, stream, args, target,
                                                            plan);
  }
}

}  // namespace

template <typename T>
void pgd_step_cuda(const PgdStepArgs<T>& given, void* stream) {
  const PgdStepArgs<T> args = with_storable_box(given);
  with_target(args, [&](auto target) {
    const bool vector = runs_are_vectors(args, target);
    switch (args.norm) {
      case PgdNorm::kLinf:
        if (args.velocity == nullptr) return run_linf(args, target, vector, stream);
        return run_samples<PgdNorm::kLinf>(args, target, vector, stream);
      case PgdNorm::kL2:
        return run_samples<PgdNorm::kL2>(args, target, vector, stream);
      case PgdNorm::kL1:
        return run_samples<PgdNorm::kL1>(args, target, vector, stream);
    }
  });
}

template void pgd_step_cuda<float>(const PgdStepArgs<float>&, void*);
template void pgd_step_cuda<double>(const PgdStepArgs<double>&, void*);
template void pgd_step_cuda<BFloat16>(const PgdStepArgs<BFloat16>&, void*);
template void pgd_step_cuda<Half>(const PgdStepArgs<Half>&, void*);

}  // namespace mdprop
