// Runs: the values of a sample that a thread loads and stores at once, with the mask applied.
//
// Where every pointer is aligned and M is a multiple of kRun, a run is a vector of neighbouring values. Elsewhere its
// values are a block's width apart, so that a warp still reads neighbours.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/vector.cuh"
#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_target.h"

MDPROP_ISA_BEGIN

// 16 bytes; 8 for half types, since eight values in flight would take more registers than they hide latency.
template <typename T>
constexpr int kRun = sizeof(T) == 2 ? 4 : kVectorWidth<T>;

struct RunPlace {
  int64_t first;  // the place of the run's first value in its sample
  int stride;     // from value to value
  bool vector;    // of neighbours, aligned

  __device__ bool holds(int k, int64_t size) const { return first + static_cast<int64_t>(k) * stride < size; }
};

// The run of a thread among `threads` that share a chunk of threads * kRun values.
template <typename T>
__device__ RunPlace run_place(int64_t chunk, int threads, int thread, bool vector) {
  if (vector) return {(chunk * threads + thread) * kRun<T>, 1, true};
  return {chunk * threads * kRun<T> + thread, threads, false};
}

// Values beyond the sample stay as they are.
template <bool kStreaming, int kCount, typename S>
__device__ void load_run(const S* from, const RunPlace& place, int64_t size, S (&values)[kCount]) {
  if (place.vector) {
    if (place.first >= size) return;
    constexpr int kStep = kCount < kVectorWidth<S> ? kCount : kVectorWidth<S>;
    for (int i = 0; i < kCount; i += kStep) {
      const S* at = from + place.first + i;
      const Vector<S, kStep> vector = kStreaming ? load_streaming<kStep>(at) : load_vector<kStep>(at);
      for (int k = 0; k < kStep; ++k) values[i + k] = vector[k];
    }
  } else {
    for (int k = 0; k < kCount; ++k) {
      if (place.holds(k, size)) values[k] = from[place.first + static_cast<int64_t>(k) * place.stride];
    }
  }
}

template <int kCount, typename S>
__device__ void store_run(S* to, const RunPlace& place, int64_t size, const S (&values)[kCount]) {
  if (place.vector) {
    if (place.first >= size) return;
    constexpr int kStep = kCount < kVectorWidth<S> ? kCount : kVectorWidth<S>;
    for (int i = 0; i < kCount; i += kStep) {
      Vector<S, kStep> vector;
      for (int k = 0; k < kStep; ++k) vector[k] = values[i + k];
      store_vector(to + place.first + i, vector);
    }
  } else {
    for (int k = 0; k < kCount; ++k) {
      if (place.holds(k, size)) to[place.first + static_cast<int64_t>(k) * place.stride] = values[k];
    }
  }
}

// The box, with ends that T can store.
template <typename T, int kCount, typename Args, typename Acc>
__device__ void load_bounds(const Args& args, int64_t sample, const RunPlace& place, Acc (&lower)[kCount],
                            Acc (&upper)[kCount]) {
  for (int k = 0; k < kCount; ++k) lower[k] = args.lower;
  for (int k = 0; k < kCount; ++k) upper[k] = args.upper;
  if (args.lower_bounds == nullptr) return;
  const int64_t start = sample * args.bound_sample_stride;
  load_run<false>(args.lower_bounds + start, place, args.sample_size, lower);
  load_run<false>(args.upper_bounds + start, place, args.sample_size, upper);
  for (int k = 0; k < kCount; ++k) make_storable<T>(lower[k], upper[k]);
}

// A value with all that a step needs of it. Where `shown` is false, because the mask is 0 or the sample has ended, it
// is a point at rest in the box without a gradient, which adds nothing to any norm.
template <typename Acc>
struct PgdValue {
  Acc x, grad, origin, lower, upper;
  bool shown;
};

// x and grad stay as they are stored, which takes half the registers for half types.
template <typename T>
struct InputRun {
  using Acc = acc_t<T>;
  T x[kRun<T>], grad[kRun<T>];
  Acc origin[kRun<T>], lower[kRun<T>], upper[kRun<T>];
  uint32_t shown;  // bit k for value k

  __device__ PgdValue<Acc> value(int k) const {
    const bool is_shown = (shown >> k & 1) != 0;
    const Acc rest = clamp_to(Acc(0), lower[k], upper[k]);
    return {is_shown ? widen(x[k]) : rest,
            is_shown ? widen(grad[k]) : Acc(0),
            is_shown ? origin[k] : rest,
            lower[k],
            upper[k],
            is_shown};
  }
};

// The bits of the values that the sample and its mask hold.
template <typename T>
__device__ uint32_t shown_bits(const PgdStepArgs<T>& args, int64_t sample, const RunPlace& place) {
  uint8_t mask[kRun<T>];
  for (int k = 0; k < kRun<T>; ++k) mask[k] = place.holds(k, args.sample_size) ? 1 : 0;
  if (args.mask != nullptr) {
    load_run<false>(args.mask + sample * args.mask_sample_stride, place, args.sample_size, mask);
  }
  uint32_t bits = 0;
  for (int k = 0; k < kRun<T>; ++k) bits |= (mask[k] != 0 ? 1u : 0u) << k;
  return bits;
}

// The inputs of a run as they are stored.
template <typename T>
struct RawRun {
  T x[kRun<T>], grad[kRun<T>], origin[kRun<T>];
  uint8_t bytes[kRun<T>];  // in the place of origin, if that is an image of bytes
};

// All loads come first, so that they are under way together.
template <bool kStreaming, typename T>
__device__ RawRun<T> load_raw(const PgdStepArgs<T>& args, const T* grad, int64_t sample, const RunPlace& place) {
  const int64_t start = sample * args.sample_size, size = args.sample_size;
  RawRun<T> raw = {};
  load_run<kStreaming>(args.x + start, place, size, raw.x);
  load_run<kStreaming>(grad + start, place, size, raw.grad);
  if (args.origin_bytes == nullptr) {
    load_run<kStreaming>(args.origin + start, place, size, raw.origin);
  } else {
    load_run<kStreaming>(args.origin_bytes + start, place, size, raw.bytes);
  }
  return raw;
}

template <typename T>
__device__ InputRun<T> complete_run(const PgdStepArgs<T>& args, int64_t sample, const RunPlace& place,
                                    const RawRun<T>& raw) {
  using Acc = acc_t<T>;
  InputRun<T> run;
  load_bounds<T>(args, sample, place, run.lower, run.upper);
  run.shown = shown_bits(args, sample, place);
  for (int k = 0; k < kRun<T>; ++k) {
    run.x[k] = raw.x[k];
    run.grad[k] = raw.grad[k];
    run.origin[k] = args.origin_bytes == nullptr ? widen(raw.origin[k]) : byte_value<Acc>(raw.bytes[k]);
  }
  return run;
}

// x as it is, in the type of the result.
template <typename T, typename Out>
__device__ Out kept_value(T x) {
  if constexpr (std::is_same_v<T, Out>) {
    return x;
  } else {
    return narrow<Out>(widen(x));
  }
}

// Stores results where the mask is not 0, else x.
template <typename T, typename Target>
__device__ void store_results(const PgdStepArgs<T>& args, Target target, int64_t sample, const RunPlace& place,
                              uint32_t shown, typename Target::Out (&results)[kRun<T>]) {
  const int64_t start = sample * args.sample_size;
  if (args.mask != nullptr) {
    T x[kRun<T>] = {};
    load_run<false>(args.x + start, place, args.sample_size, x);
    for (int k = 0; k < kRun<T>; ++k) {
      if ((shown >> k & 1) == 0) results[k] = kept_value<T, typename Target::Out>(x[k]);
    }
  }
  store_run(target.out + start, place, args.sample_size, results);
}

// The result of a sample that is not active.
template <typename T, typename Target>
__device__ void store_x(const PgdStepArgs<T>& args, Target target, int64_t sample, const RunPlace& place) {
  if constexpr (std::is_same_v<T, typename Target::Out>) {
    if (args.x == target.out) return;
  }
  const int64_t start = sample * args.sample_size;
  T x[kRun<T>] = {};
  typename Target::Out results[kRun<T>];
  load_run<false>(args.x + start, place, args.sample_size, x);
  for (int k = 0; k < kRun<T>; ++k) results[k] = kept_value<T, typename Target::Out>(x[k]);
  store_run(target.out + start, place, args.sample_size, results);
}

template <typename T>
__device__ bool is_active(const PgdStepArgs<T>& args, int64_t sample) {
  return args.active == nullptr || args.active[sample] != 0;
}

MDPROP_ISA_END
