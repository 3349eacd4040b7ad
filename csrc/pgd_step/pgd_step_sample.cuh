// A sample as a team of blocks holds it: each block has some of its chunks in shared memory, as many as fit, and reads
// the rest again for every pass. A small sample is all in the shared memory of one block.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/vector.cuh"
#include "pgd_step/pgd_step_plan.h"
#include "pgd_step/pgd_step_runs.cuh"
#include "pgd_step/pgd_step_sums.cuh"

MDPROP_ISA_BEGIN

// Shared memory of a thread for a chunk: a run of x, grad and origin each.
template <typename T>
constexpr int kSlotBytes = 3 * kRun<T> * static_cast<int>(sizeof(T));

// Thread t owns run t of every chunk of its block, in every pass; so it alone touches its slots of the cache.
template <typename T>
class Sample {
  using Acc = acc_t<T>;

 public:
  // A number past the last sample stands for one that is not active.
  __device__ Sample(const PgdStepArgs<T>& args, const SamplePlan& plan, Team& team, int64_t number)
      : args_(args),
        plan_(plan),
        team_(team),
        sample_(min(number, args.samples - 1)),
        absent_(number >= args.samples),
        inactive_(absent_ || !is_active(args, sample_)) {}

  __device__ int64_t number() const { return sample_; }
  __device__ bool inactive() const { return inactive_; }

  // The next pass computes new velocities and stores them; they are the gradients from then on.
  __device__ void set_momentum(const Direction<Acc>& normalised) {
    normalised_ = normalised;
    momentum_ = Momentum::kNew;
  }

  // The sum of term(value) over the sample, the same bits in every thread of the team. With `rests`, this block only
  // takes part in the barriers.
  template <int kFields, typename Term>
  __device__ Sums<kFields> sum(const Term& term, bool rests = false) {
    int slot = 0;
    const Sums<kFields> total = team_.template sum<kFields>(inactive_ || rests, [&](int64_t part) {
      Sums<kFields> own = {};
      for_each_run(part, slot, [&](const InputRun<T>& run, const RunPlace&) {
        for (int k = 0; k < kRun<T>; ++k) own += term(run.value(k));
      });
      return own;
    });
    finish_pass();
    return total;
  }

  // result(value) for every value.
  template <typename Target, typename Result>
  __device__ void write(Target target, const Result& result) {
    if (inactive_) return;
    int slot = 0;
    for (int64_t part = team_.first_part(); part < plan_.parts; part += team_.part_step()) {
      for_each_run(part, slot, [&](const InputRun<T>& run, const RunPlace& place) {
        typename Target::Out results[kRun<T>];
        for (int k = 0; k < kRun<T>; ++k) results[k] = result(run.value(k));
        store_results(args_, target, sample_, place, run.shown, results);
      });
    }
  }

  // x for every value: the result of a sample that is not active.
  template <typename Target>
  __device__ void write_x(Target target) const {
    if (absent_) return;
    for (int64_t part = team_.first_part(); part < plan_.parts; part += team_.part_step()) {
      for (int64_t chunk = part * plan_.chunks_a_part; chunk < end_chunk(part); ++chunk) {
        store_x(args_, target, sample_, place(chunk));
      }
    }
  }

  // Runs at equal distances over the sample, of which each warp takes 32 in a row, for a guess from few of the values.
  template <typename Visit>
  __device__ void for_each_spread_run(int runs, const Visit& visit) const {
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    const int64_t spacing = args_.sample_size / (runs * warps) / kRun<T> * kRun<T>;
    for (int r = 0; r < runs; ++r) {
      const int64_t start = (r * warps + warp_id()) * spacing;
      const RunPlace at =
          plan_.vector ? RunPlace{start + lane_id() * kRun<T>, 1, true} : RunPlace{start + lane_id(), kWarpSize, false};
      InputRun<T> run = complete_run(args_, sample_, at, load_raw<false>(args_, args_.grad, sample_, at));
      if (momentum_ == Momentum::kNew) new_velocity(at, run);
      visit(r, run);
    }
  }

 private:
  enum class Momentum { kNone, kNew, kStored };

  __device__ RunPlace place(int64_t chunk) const {
    return run_place<T>(chunk, static_cast<int>(blockDim.x), static_cast<int>(threadIdx.x), plan_.vector);
  }
  __device__ int64_t end_chunk(int64_t part) const { return min((part + 1) * plan_.chunks_a_part, plan_.chunks); }

  // visit(run, place) for the thread's runs of a part, of which `slot` counts those before. The next run is under way
  // while one is worked on.
  template <typename Visit>
  __device__ void for_each_run(int64_t part, int& slot, const Visit& visit) const {
    int64_t chunk = part * plan_.chunks_a_part;
    const int64_t end = end_chunk(part);
    if (chunk >= end) return;
    RawRun<T> next = fetch(place(chunk), slot);
    for (; chunk < end; ++chunk, ++slot) {
      const RunPlace at = place(chunk);
      InputRun<T> run = complete_run(args_, sample_, at, next);
      const bool cached = slot < plan_.cached_chunks;
      if (cached && !filled_) write_slot(slot, next);
      if (chunk + 1 < end) next = fetch(place(chunk + 1), slot + 1);
      if (momentum_ == Momentum::kNew) {
        new_velocity(at, run);
        store_run(args_.velocity + sample_ * args_.sample_size, at, args_.sample_size, run.grad);
        if (cached) store_run(slot_values<T>(slot, 1), whole_run(), kRun<T>, run.grad);
      }
      visit(run, at);
    }
  }

  __device__ RawRun<T> fetch(const RunPlace& at, int slot) const {
    if (filled_ && slot < plan_.cached_chunks) return read_slot(slot);
    return load_raw<false>(args_, momentum_ == Momentum::kStored ? args_.velocity : args_.grad, sample_, at);
  }

  // Replaces the gradients of a run by its new velocities; by the old ones where the mask is 0.
  __device__ void new_velocity(const RunPlace& place, InputRun<T>& run) const {
    T velocity[kRun<T>] = {};
    load_run<false>(args_.velocity + sample_ * args_.sample_size, place, args_.sample_size, velocity);
    for (int k = 0; k < kRun<T>; ++k) {
      const T changed =
          narrow<T>(momentum(widen(velocity[k]), widen(run.grad[k]), static_cast<Acc>(args_.decay), normalised_));
      run.grad[k] = (run.shown >> k & 1) != 0 ? changed : velocity[k];
    }
  }

  __device__ void finish_pass() {
    filled_ = true;
    if (momentum_ == Momentum::kNew) momentum_ = Momentum::kStored;
  }

  // The run of a thread in one of the three arrays of a slot: x, grad and origin.
  template <typename S>
  __device__ S* slot_values(int slot, int array) const {
    const int at = (slot * 3 + array) * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    return reinterpret_cast<S*>(dynamic_shared() + at * (kSlotBytes<T> / 3));
  }
  __device__ RawRun<T> read_slot(int slot) const {
    RawRun<T> raw = {};
    load_run<false>(slot_values<const T>(slot, 0), whole_run(), kRun<T>, raw.x);
    load_run<false>(slot_values<const T>(slot, 1), whole_run(), kRun<T>, raw.grad);
    if (args_.origin_bytes == nullptr) {
      load_run<false>(slot_values<const T>(slot, 2), whole_run(), kRun<T>, raw.origin);
    } else {
      load_run<false>(slot_values<const uint8_t>(slot, 2), whole_run(), kRun<T>, raw.bytes);
    }
    return raw;
  }
  __device__ void write_slot(int slot, const RawRun<T>& raw) const {
    store_run(slot_values<T>(slot, 0), whole_run(), kRun<T>, raw.x);
    store_run(slot_values<T>(slot, 1), whole_run(), kRun<T>, raw.grad);
    if (args_.origin_bytes == nullptr) {
      store_run(slot_values<T>(slot, 2), whole_run(), kRun<T>, raw.origin);
    } else {
      store_run(slot_values<uint8_t>(slot, 2), whole_run(), kRun<T>, raw.bytes);
    }
  }

  __device__ static RunPlace whole_run() { return {0, 1, true}; }

  const PgdStepArgs<T>& args_;
  const SamplePlan& plan_;
  Team& team_;
  int64_t sample_;
  bool absent_, inactive_, filled_ = false;
  Momentum momentum_ = Momentum::kNone;
  Direction<Acc> normalised_ = Direction<Acc>({0, 1}, 0);
};

MDPROP_ISA_END
