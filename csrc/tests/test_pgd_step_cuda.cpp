// pgd_step and random_start as CUDA kernels, against the CPU kernels: linf and random_start to the bit, the rest to the
// rounding of their sums.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "emulation/machine.h"
#include "pgd_step/pgd_step.h"
#include "pgd_step/pgd_step_plan.h"
#include "tests/check.h"
#include "tests/device_buffer.h"
#include "tests/pgd_step_problem.h"

namespace {

using mdprop::acc_t;
using mdprop::BFloat16;
using mdprop::Half;
using mdprop::PgdNorm;
using mdprop::PgdStepArgs;
using mdprop_test::PgdOptions;
using mdprop_test::PgdProblem;

// A copy that begins `shift` values behind its guard zone: 1 leaves it without alignment to a vector.
template <typename T>
struct Shifted {
  Shifted(const T* from, int64_t size, int64_t shift) : buffer(size + shift), shift(shift) {
    if (from != nullptr) std::memcpy(buffer.data() + shift, from, size * sizeof(T));
  }
  T* data() const { return buffer.data() + shift; }

  DeviceBuffer<T> buffer;
  int64_t shift;
};

template <typename T, typename Out>
void set_out(PgdStepArgs<T>& args, Out* out) {
  if constexpr (std::is_same_v<T, Out>) {
    args.out = out;
  } else if constexpr (std::is_same_v<Out, BFloat16>) {
    args.out_bfloat16 = out;
  } else {
    args.out_half = out;
  }
}

template <typename T>
struct Results {
  std::vector<T> out;
  std::vector<double> velocity;
};

template <typename T, typename Out>
Results<Out> on_cpu(PgdProblem<T>& problem) {
  PgdStepArgs<T> args = problem.args;
  std::vector<T> velocity = problem.velocity;
  std::vector<Out> out(problem.x.size());
  if (args.velocity != nullptr) args.velocity = velocity.data();
  set_out(args, out.data());
  mdprop::pgd_step_cpu(args);
  Results<Out> results{out, {}};
  for (const T v : velocity) results.velocity.push_back(mdprop::widen(v));
  return results;
}

template <typename T, typename Out>
Results<Out> on_card(const PgdProblem<T>& problem, int64_t shift, bool in_place) {
  PgdStepArgs<T> args = problem.args;
  const int64_t total = static_cast<int64_t>(problem.x.size()), size = args.sample_size;
  const int64_t bounds = args.bound_sample_stride != 0 ? total : size;
  const Shifted<T> x(args.x, total, shift), grad(args.grad, total, shift);
  const Shifted<T> origin(args.origin, args.origin != nullptr ? total : 0, shift);
  const Shifted<T> velocity(problem.velocity.data(), total, shift);
  const Shifted<uint8_t> bytes(problem.bytes.data(), total, shift), mask(problem.mask.data(), size, shift);
  const Shifted<uint8_t> active(problem.active.data(), args.samples, shift);
  const Shifted<double> steps(args.steps, args.samples, shift), radii(args.radii, args.samples, shift);
  const Shifted<acc_t<T>> lower(args.lower_bounds, args.lower_bounds != nullptr ? bounds : 0, shift);
  const Shifted<acc_t<T>> upper(args.upper_bounds, args.upper_bounds != nullptr ? bounds : 0, shift);
  const Shifted<Out> out(nullptr, total, shift);
  const DeviceBuffer<unsigned char> workspace(mdprop::pgd_step_workspace(args.samples, size));
  args.x = x.data();
  args.grad = grad.data();
  if (args.origin != nullptr) args.origin = origin.data();
  if (args.origin_bytes != nullptr) args.origin_bytes = bytes.data();
  if (args.velocity != nullptr) args.velocity = velocity.data();
  if (args.lower_bounds != nullptr) args.lower_bounds = lower.data();
  if (args.upper_bounds != nullptr) args.upper_bounds = upper.data();
  if (args.active != nullptr) args.active = active.data();
  if (args.mask != nullptr) args.mask = mask.data();
  args.steps = steps.data();
  args.radii = radii.data();
  args.workspace = workspace.size() > 0 ? workspace.data() : nullptr;
  set_out(args, out.data());
  if constexpr (std::is_same_v<T, Out>) {
    if (in_place) args.out = x.data();
  }
  mdprop::pgd_step_cuda(args, nullptr);
  Results<Out> results;
  const Out* const written = in_place ? reinterpret_cast<const Out*>(x.data()) : out.data();
  for (int64_t i = 0; i < total; ++i) {
    results.out.push_back(written[i]);
    results.velocity.push_back(mdprop::widen(velocity.data()[i]));
  }
  return results;
}

// How far a result may be off: roundings of the sums, and one step of the storage type where they tip a rounding.
template <typename Out>
double tolerance(PgdNorm norm) {
  if (std::is_same_v<Out, float>) return norm == PgdNorm::kLinf ? 0 : 2e-6;
  if (std::is_same_v<Out, double>) return norm == PgdNorm::kLinf ? 0 : 1e-13;
  if (std::is_same_v<Out, BFloat16>) return norm == PgdNorm::kLinf ? 0 : 0.0079;
  return norm == PgdNorm::kLinf ? 0 : 0.00098;
}

template <typename T, typename Out = T>
void check_equal(int64_t samples, int64_t size, const PgdOptions& options, int64_t shift = 0, bool in_place = false) {
  PgdProblem<T> problem(samples, size, options);
  const Results<Out> expected = on_cpu<T, Out>(problem), got = on_card<T, Out>(problem, shift, in_place);
  // A mean of another order may round a velocity, and with it the sign of a value near 0, the other way.
  const bool exact = options.norm == PgdNorm::kLinf && !options.velocity;
  double worst = 0, worst_velocity = 0;
  int64_t unlike = 0;
  for (size_t i = 0; i < expected.out.size(); ++i) {
    const double off = std::fabs(double(mdprop::widen(got.out[i])) - double(mdprop::widen(expected.out[i])));
    worst = off <= worst ? worst : off;
    unlike += std::memcmp(&got.out[i], &expected.out[i], sizeof(Out)) != 0;
    worst_velocity = std::max(worst_velocity, std::fabs(got.velocity[i] - expected.velocity[i]));
  }
  const double allowed = std::max(tolerance<Out>(options.norm), exact ? 0 : tolerance<Out>(PgdNorm::kL2));
  const bool close = worst <= allowed && worst_velocity <= 8 * tolerance<T>(PgdNorm::kL2);
  if (!CHECK(close && (!exact || unlike == 0))) {
    std::printf("  norm %d, samples %ld, size %ld, shift %ld, worst %g, velocity %g, bounds %d, bytes %d, mask %d\n",
                static_cast<int>(options.norm), static_cast<long>(samples), static_cast<long>(size),
                static_cast<long>(shift), worst, worst_velocity, options.tensor_bounds, options.bytes, options.mask);
  }
}

// NaN and infinity in x and origin: like the CPU, and the rest of the sample finite.
template <typename T>
void test_special_values() {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    PgdProblem<T> problem(1, 40, PgdOptions{norm});
    const auto value = [](float v) { return mdprop::narrow<T>(static_cast<acc_t<T>>(v)); };
    problem.x[3] = problem.origin[7] = value(NAN);
    problem.x[5] = value(INFINITY);
    problem.x[30] = value(-INFINITY);
    const Results<T> expected = on_cpu<T, T>(problem), got = on_card<T, T>(problem, 0, false);
    for (int i = 0; i < 40; ++i) {
      const double a = mdprop::widen(expected.out[i]), b = mdprop::widen(got.out[i]);
      CHECK(i == 3 || i == 7 ? std::isnan(a) && std::isnan(b) : std::fabs(a - b) <= tolerance<T>(norm));
    }
  }
}

// The same bits whatever the number of teams and of their blocks, with samples that are not active and a last round for
// some of the teams alone: one block a sample first, then teams of three that take one to five samples each.
template <typename T>
void test_teams() {
  const int before = mdprop::emulation::multiprocessors();
  for (const PgdNorm norm : mdprop_test::kNorms) {
    for (const bool velocity : {false, true}) {
      PgdOptions options{norm};
      options.velocity = velocity, options.active = true;
      const PgdProblem<T> problem(5, 20000, options);
      mdprop::emulation::set_multiprocessors(1);
      const Results<T> alone = on_card<T, T>(problem, 0, false);
      for (const int multiprocessors : {2, 3, 5, 20}) {
        mdprop::emulation::set_multiprocessors(multiprocessors);
        const Results<T> shared = on_card<T, T>(problem, 0, false);
        CHECK(std::memcmp(alone.out.data(), shared.out.data(), alone.out.size() * sizeof(T)) == 0);
        CHECK(alone.velocity == shared.velocity);
      }
    }
  }
  mdprop::emulation::set_multiprocessors(before);
}

// Teams take one sample after the other where more at once would not stay in the caches.
void test_team_sizes() {
  constexpr int64_t kBlocks = 264, kParts = 19, kCached = 38;  // 224 x 224 images in fp32 on 132 multiprocessors
  CHECK(mdprop::choose_team_size(8, kParts, kBlocks, kCached) == kParts);
  CHECK(mdprop::choose_team_size(128, kParts, kBlocks, kCached) == 10);
  CHECK(mdprop::choose_team_size(1000, 2, kBlocks, 600) == 1);
  CHECK(mdprop::choose_team_size(4, 64, kBlocks, 0) == 64);  // none stays, but all blocks have work
  CHECK(mdprop::choose_team_size(5, 3, 6, 2) == 3 && mdprop::count_teams(5, 3, 6) == 2);
  for (const int64_t samples : {1, 7, 300, 100000}) {
    const int64_t sums = mdprop::pgd_step_workspace(samples, kParts * mdprop::kPartSize) - mdprop::kCounterBytes;
    for (const int64_t blocks : {2, 6, 264, 2000}) {
      const int64_t size = mdprop::choose_team_size(samples, kParts, blocks, 10);
      const int64_t teams = mdprop::count_teams(samples, size, blocks);
      CHECK(size >= 1 && size <= kParts && teams >= 1 && teams <= samples && teams * size <= blocks);
      CHECK(size == 1 || sums >= 2 * 8 * teams * kParts * mdprop::kMaxFields);
    }
  }
}

// Sizes: below a run, several samples a block of linf, one block, resident with tails, streamed by one block and by
// teams.
template <typename T>
void test_sizes() {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    for (const int64_t size : {1, 3, 8, 40, 1000, 1024, 3001, 8192, 9000, 24576, 40001}) {
      const int64_t samples = size < 100 ? 9 : size < 8000 ? 3 : 1 + size % 2;
      check_equal<T>(samples, size, PgdOptions{norm});
    }
  }
}

template <typename T, typename Out = T>
void test_options(int64_t resident, int64_t streamed) {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    for (const int64_t size : {resident, streamed}) {
      for (const int64_t shift : {0, 1}) {
        PgdOptions options{norm};
        options.tensor_bounds = options.mask = options.active = true;
        check_equal<T, Out>(3, size, options, shift);
        options.velocity = true;
        check_equal<T, Out>(3, size, options, shift);
        options = PgdOptions{norm};
        options.own_bounds = options.bytes = options.velocity = true;
        check_equal<T, Out>(2, size, options, shift);
      }
    }
    PgdOptions options{norm};
    options.active = options.mask = true;
    if (std::is_same_v<T, Out>) check_equal<T, Out>(3, resident, options, 0, true);
    if (std::is_same_v<T, Out>) check_equal<T, Out>(3, streamed, options, 0, true);
    options = PgdOptions{norm};
    options.bytes = true;
    check_equal<T, Out>(2, resident, options);
  }
}

template <typename T>
void test_random_start() {
  for (const PgdNorm norm : mdprop_test::kNorms) {
    for (const int64_t size : {1, 5, 1024, 1027, 35000}) {
      for (const bool bounds : {false, true}) {
        const int64_t samples = size > 10000 ? 1 : 3;
        PgdOptions options{norm};
        options.tensor_bounds = bounds;
        PgdProblem<T> problem(samples, size, options);
        mdprop::RandomStartArgs<T> args = {};
        args.radii = problem.args.radii;
        args.lower = problem.args.lower;
        args.upper = problem.args.upper;
        args.lower_bounds = problem.args.lower_bounds;
        args.upper_bounds = problem.args.upper_bounds;
        args.samples = samples;
        args.sample_size = size;
        args.seed = 0x123456789abcdef0;
        args.offset = 5;
        args.norm = norm;
        std::vector<T> expected(samples * size);
        args.origin = problem.origin.data();
        args.out = expected.data();
        mdprop::random_start_cpu(args);
        for (const int64_t shift : {0, 1}) {
          const Shifted<T> origin(problem.origin.data(), samples * size, shift), out(nullptr, samples * size, shift);
          const DeviceBuffer<unsigned char> workspace(mdprop::random_start_workspace(norm, samples, size));
          args.origin = origin.data();
          args.out = out.data();
          args.workspace = workspace.size() > 0 ? workspace.data() : nullptr;
          mdprop::random_start_cuda(args, nullptr);
          CHECK(std::memcmp(out.data(), expected.data(), samples * size * sizeof(T)) == 0);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test_sizes<float>();
  test_sizes<double>();
  test_sizes<BFloat16>();
  test_sizes<Half>();
  test_special_values<float>();
  test_special_values<double>();
  test_special_values<BFloat16>();
  test_team_sizes();
  test_teams<float>();
  test_teams<BFloat16>();
  test_options<float>(2000, 12288);
  test_options<double>(2000, 6144);
  test_options<BFloat16>(2000, 12288);
  test_options<Half>(2000, 12288);
  test_options<float, BFloat16>(1000, 10240);
  test_options<float, Half>(1000, 10240);
  test_random_start<float>();
  test_random_start<double>();
  test_random_start<BFloat16>();
  test_random_start<Half>();
  return test_summary();
}
