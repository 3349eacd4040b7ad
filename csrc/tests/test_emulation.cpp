// What the emulation runs right, and that it finds each kind of planted bug.
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/numeric.h"
#include "emulation/machine.h"
#include "tests/check.h"
#include "tests/device_buffer.h"
#include "tests/emulation_kernels.h"
#include "tests/random.h"

namespace {

using namespace mdprop::planted;
using mdprop::emulation::set_seed;

constexpr int kBlocks = 12, kSeeds = 20;

std::vector<float> counting(int64_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

// The error of a call, or "" if it has none.
template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::vector<const char*>& parts) {
  for (const char* part : parts) {
    if (text.find(part) == std::string::npos) {
      std::printf("'%s' lacks '%s'\n", text.c_str(), part);
      return false;
    }
  }
  return true;
}

// In how many of the seeds `run` gives `expected`.
template <typename Run>
int right_results(const std::vector<float>& expected, const Run& run) {
  int right = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    set_seed(seed);
    DeviceBuffer<float> out(static_cast<int64_t>(expected.size()));
    run(out.data());
    right += std::memcmp(out.data(), expected.data(), expected.size() * sizeof(float)) == 0;
  }
  return right;
}

void test_barriers() {
  const DeviceBuffer<float> in(counting(kBlocks * kThreads));
  std::vector<float> expected(in.size());
  for (int64_t i = 0; i < in.size(); ++i) {
    expected[i] = in[i / kThreads * kThreads + kThreads - 1 - i % kThreads];
  }
  CHECK(right_results(expected, [&](float* out) { reverse(in.data(), out, kBlocks); }) == kSeeds);
  CHECK(right_results(expected, [&](float* out) { reverse_without_barrier(in.data(), out, kBlocks); }) == 0);
  CHECK(holds(error_of(divergent_barrier),
              {"divergent_barrier_kernel", "block (0, 0, 0), thread ", "divergent barrier", "emulation_kernels.cu:"}));
  CHECK(holds(error_of(barrier_after_return), {"deadlock", "thread 5 has returned", "waits at __syncthreads"}));
}

void test_warps() {
  CHECK(holds(error_of(divergent_shuffle), {"divergent warp", "__shfl_xor_sync", "__shfl_down_sync"}));
  CHECK(holds(error_of(shuffle_from_outside), {"reads lane 9"}));
}

void test_sums() {
  const DeviceBuffer<float> in(mdprop_test::normal_values<float>(kBlocks * kThreads, 5));
  std::set<float> dependent, ordered;
  for (int seed = 0; seed < kSeeds; ++seed) {
    set_seed(seed);
    DeviceBuffer<float> sum(std::vector<float>{0}), total(1), partials(kBlocks * kThreads / 32);
    DeviceBuffer<unsigned> counter(std::vector<unsigned>{0});
    order_dependent_sum(in.data(), sum.data(), kBlocks);
    ordered_sum(in.data(), partials.data(), counter.data(), total.data(), kBlocks);
    dependent.insert(sum[0]);
    ordered.insert(total[0]);
    CHECK(counter[0] == 0 && partials.first_unwritten() == -1);
    CHECK_NEAR(sum[0], total[0], 1e-3);
  }
  CHECK(ordered.size() == 1);
  CHECK(dependent.size() > 1);
}

void test_memory() {
  DeviceBuffer<float> out(kThreads);
  CHECK(out.first_unwritten() == 0);
  all_but_one(out.data());
  CHECK(out.first_unwritten() == 77);
  const DeviceBuffer<float> in(counting(8));
  CHECK(holds(error_of([&] { misaligned(in.data(), out.data()); }), {"misaligned"}));
}

void test_reports() {
  DeviceBuffer<unsigned> flag(std::vector<unsigned>{0});
  CHECK(holds(error_of([&] { spin(flag.data()); }), {"spin_kernel", "goes round"}));
  CHECK(holds(error_of([&] { vote_for_ever(flag.data()); }), {"vote_for_ever_kernel", "goes round"}));
  CHECK(holds(error_of([] { refuse(0); }), {"refuse_kernel", ": block (0, 0, 0), thread 0: value: expected > 0"}));
  CHECK(error_of([] { refuse(1); }).empty());  // the machine works on after an error
}

void test_limits() {
  CHECK(error_of([] { launch_empty(1, 1024, 99 << 10); }).empty());
  CHECK(holds(error_of([] { launch_empty(0, 32, 0); }), {"empty_kernel", "grid of (0, 1, 1) blocks"}));
  CHECK(holds(error_of([] { launch_empty(1, 1025, 0); }), {"block of (1025, 1, 1) threads"}));
  CHECK(holds(error_of([] { launch_empty(1, 32, (99 << 10) + 1); }), {"101377 bytes", "a block has 101376"}));
  const unsigned most = mdprop::emulation::multiprocessors() * 2;
  CHECK(error_of([=] { launch_together(most, 48 << 10); }).empty());
  CHECK(holds(error_of([=] { launch_together(most + 1, 48 << 10); }), {"cooperative grid", "run at once"}));
  CHECK(error_of([] { launch_holding((99 << 10) - kHeldBytes); }).empty());
  CHECK(holds(error_of([] { launch_holding((99 << 10) - kHeldBytes + 1); }), {"holding_kernel", "101377 bytes"}));
}

void test_copies() {
  const DeviceBuffer<float> in(counting(5 * kThreads * 4));
  CHECK(right_results(in.values(), [&](float* out) { copy_in_groups(in.data(), out, 5); }) == kSeeds);
  CHECK(right_results(in.values(), [&](float* out) { copy_without_wait(in.data(), out, 5); }) == 0);
  CHECK(right_results(in.values(), [&](float* out) { copy_by_bulk(in.data(), out, 5); }) == kSeeds);
}

void test_clusters_and_grids() {
  std::vector<float> by_cluster, by_grid;
  for (int block = 0; block < kBlocks; ++block) {
    by_cluster.push_back(static_cast<float>(block / 4 * 16 + 6));
    by_grid.push_back(kBlocks * (kBlocks - 1) / 2);
  }
  CHECK(right_results(by_cluster, [](float* out) { cluster_sum(out, kBlocks); }) == kSeeds);
  const auto broken = [](float* out) { error_of([=] { cluster_without_barrier(out, kBlocks); }); };
  CHECK(right_results(by_cluster, broken) == 0);
  DeviceBuffer<float> values(kBlocks);
  CHECK(right_results(by_grid, [&](float* out) { grid_sum(values.data(), out, kBlocks); }) == kSeeds);
}

void test_products() {
  const auto a = mdprop_test::normal_values<mdprop::BFloat16>(256, 1);
  const auto b = mdprop_test::normal_values<mdprop::BFloat16>(128, 2);
  const DeviceBuffer<mdprop::BFloat16> a_device(a), b_device(b);
  DeviceBuffer<float> d(128);
  product(&a_device.data()->bits, &b_device.data()->bits, d.data());
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += double{mdprop::widen(a[row * 16 + k])} * mdprop::widen(b[column * 16 + k]);
      CHECK_NEAR(d[row * 8 + column], sum, 1e-5);
    }
  }
}

// Bugs after which the program may not go on: ctest runs each on its own and reads what is printed.
void run_fatal(const std::string& bug) {
  DeviceBuffer<float> in(counting(kThreads)), out(kThreads);
  std::string error;
  if (bug == "shared_overrun") error = error_of([&] { shared_overrun(out.data()); });
  if (bug == "global_overrun") global_overrun(out.data());
  if (bug == "spin_alone") {
    DeviceBuffer<unsigned> flag(std::vector<unsigned>{0});
    spin_alone(flag.data());
  }
  if (bug == "global_overread") {
    // Without AddressSanitizer a read beyond the end shows itself by the guard's bytes only.
    global_overread(in.data(), out.data());
    if (out[kThreads - 1] != kThreads) error = "guard zone changed the result";
  }
  std::printf("%s\n", error.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    run_fatal(argv[1]);
    return test_summary();
  }
  test_barriers();
  test_warps();
  test_sums();
  test_memory();
  test_reports();
  test_limits();
  test_copies();
  test_clusters_and_grids();
  test_products();
  return test_summary();
}
