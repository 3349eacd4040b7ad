// multi_batch_norm as CUDA kernels, every route at every width, against naive loops in fp64.
#include <optional>
#include <stdexcept>
#include <string>

#include "multi_batch_norm/multi_batch_norm.h"
#include "multi_batch_norm/multi_batch_norm_plan.h"
#include "tests/device_buffer.h"
#include "tests/multi_batch_norm_problem.h"

namespace {

using namespace norm_problem;

enum class Routing { kIds, kSizes, kHostSizes, kNothing };

// The results of the kernels go to poisoned buffers and from there to the problem.
template <typename T>
void collect(const DeviceBuffer<T>& buffer, std::vector<T>& to) {
  CHECK(buffer.first_unwritten() == -1);
  to = buffer.values();
}

template <typename T>
class Device {
 public:
  using Acc = acc_t<T>;

  explicit Device(Problem<T>& p, Routing routing = Routing::kIds)
      : p_(p),
        x_(p.x),
        residual_(p.residual),
        grad_(p.grad),
        weight_(p.weight),
        bias_(p.bias),
        mean_(p.mean),
        var_(p.var),
        ids_(p.branch_of),
        sizes_(std::vector<int64_t>{p.offsets[1], p.offsets[2] - p.offsets[1], p.offsets[3] - p.offsets[2]}),
        workspace_(mdprop::workspace_bytes(p.shape, sizeof(T))),
        shape_(p.shape) {
    shape_.order = shape_.offsets = nullptr;
    shape_.ids = routing == Routing::kIds ? ids_.data() : nullptr;
    shape_.sizes = routing == Routing::kSizes ? sizes_.data() : nullptr;
    shape_.host_sizes = routing == Routing::kHostSizes ? sizes_.data() : nullptr;
    shape_.workspace = workspace_.data();
  }

  void statistics() {
    const DeviceBuffer<double> moments(static_cast<int64_t>(p_.moments.size()));
    mdprop::multi_batch_norm_statistics_cuda<T>({shape_, x_.data(), moments.data()}, nullptr);
    collect(moments, p_.moments);
  }

  void forward() {
    const DeviceBuffer<T> y(size());
    const DeviceBuffer<uint8_t> mask(static_cast<int64_t>(p_.mask.size()));
    const DeviceBuffer<int64_t> count(3);
    mdprop::multi_batch_norm_forward_cuda<T>(
        {shape_, x_.data(), p_.residual.empty() ? nullptr : residual_.data(), weight_.data(), bias_.data(),
         mean_.data(), var_.data(), y.data(), p_.mask.empty() ? nullptr : mask.data(), count.data()},
        nullptr);
    collect(y, p_.y);
    p_.mask = mask.values();  // poison is a byte that a mask may hold
    collect(count, p_.count);
    p_.mean = mean_.values();
    p_.var = var_.values();
  }

  void backward() {
    const DeviceBuffer<T> grad_x(size()), grad_residual(static_cast<int64_t>(p_.grad_residual.size()));
    const DeviceBuffer<Acc> grad_weight(table()), grad_bias(table());
    auto args = backward_args();
    args.grad_x = grad_x.data();
    args.grad_residual = p_.mask.empty() ? nullptr : grad_residual.data();
    args.grad_weight = grad_weight.data();
    args.grad_bias = grad_bias.data();
    mdprop::multi_batch_norm_backward_cuda(args, nullptr);
    collect(grad_x, p_.grad_x);
    collect(grad_residual, p_.grad_residual);
    collect(grad_weight, p_.grad_weight);
    collect(grad_bias, p_.grad_bias);
  }

  // The gradient by way of its sums gives the same bits.
  void halves() {
    const DeviceBuffer<double> sums(static_cast<int64_t>(p_.sums.size()));
    const DeviceBuffer<T> grad_x(size());
    auto args = backward_args();
    args.sums = sums.data();
    mdprop::multi_batch_norm_backward_cuda(args, nullptr);
    collect(sums, p_.sums);
    args = backward_args();
    args.total_sums = sums.data();
    args.grad_x = grad_x.data();
    mdprop::multi_batch_norm_backward_cuda(args, nullptr);
    CHECK(std::memcmp(grad_x.data(), p_.grad_x.data(), p_.grad_x.size() * sizeof(T)) == 0);
  }

  void run() {
    statistics();
    forward();
    mask_.emplace(p_.mask);
    backward();
    halves();
  }

 private:
  int64_t size() const { return static_cast<int64_t>(p_.x.size()); }
  int64_t table() const { return static_cast<int64_t>(p_.weight.size()); }

  mdprop::MultiBatchNormBackwardArgs<T> backward_args() const {
    mdprop::MultiBatchNormBackwardArgs<T> args{};
    args.shape = shape_;
    args.grad = grad_.data();
    args.x = x_.data();
    args.mask = p_.mask.empty() ? nullptr : mask_->data();
    args.weight = weight_.data();
    args.bias = bias_.data();
    args.mean = mean_.data();
    args.var = var_.data();
    return args;
  }

  Problem<T>& p_;
  DeviceBuffer<T> x_, residual_, grad_;
  DeviceBuffer<Acc> weight_, bias_, mean_, var_;
  DeviceBuffer<int64_t> ids_, sizes_;
  DeviceBuffer<unsigned char> workspace_;
  std::optional<DeviceBuffer<uint8_t>> mask_;
  MultiBatchNormShape shape_;
};

// Runs a problem on the route that it is meant for.
template <typename T>
void check_route(const Options& options, int width, bool resident) {
  Problem<T> problem(options);
  const auto plan = mdprop::plan_of(problem.shape, sizeof(T), 2);
  CHECK(plan.width == width);
  CHECK((plan.kept > 0) == resident);
  CHECK((mdprop::plan_of(problem.shape, sizeof(T), 1).kept > 0) == resident);
  Device<T>(problem).run();
  check_all(problem, kTolerance<T>);
}

// Planes whose length lets a thread load `width` values at once, and rows of so many channels; few and many.
template <typename T>
void test_width(int width) {
  const int64_t bytes = sizeof(T);
  for_each_choice([&](bool channels_last, bool training, bool relu, bool residual) {
    const int64_t channels = channels_last ? 3 * width : 5, spatial = channels_last ? 7 : 13 * width;
    check_route<T>({7, channels, spatial, channels_last, training, relu, residual}, width, true);
  });
  const int64_t long_plane = (40 << 10) / bytes / 8 * 8 + width;
  check_route<T>({4, 1, long_plane, false, true, true, true}, width, false);
  const int64_t channels = 3 * width, block = std::max<int64_t>(8, channels);
  check_route<T>({6, channels, (40 << 10) / bytes / block, true, true, true, true}, width, false);
  check_route<T>({4, 1, long_plane, false, false, false, true}, width, false);
}

// Far more lines than a thread block of one route has in mind: all samples in one branch of three.
template <typename T>
void test_one_sided() {
  for (const bool channels_last : {false, true}) {
    Options options{48, 8, 104, channels_last, true, true, true};
    options.one_sided = true;
    Problem<T> problem(options);
    CHECK(mdprop::plan_of(problem.shape, sizeof(T), 1).kept > 0);
    Device<T>(problem).run();
    check_all(problem, kTolerance<T>);
  }
}

// More chunks than threads that join them, and planes in pieces.
void test_many_chunks() {
  for (const bool channels_last : {false, true}) {
    const int64_t spatial = channels_last ? 2500 : 20000, channels = channels_last ? 32 : 2;
    Problem<float> problem({3, channels, spatial, channels_last});
    const auto plan = mdprop::plan_of(problem.shape, 4, 1);
    CHECK(plan.kept == 0 && plan.max_chunks > 10 && (channels_last || plan.pieces > 1));
    Device<float>(problem).run();
    check_all(problem, 2e-5);
  }
}

void test_large_mean() {
  for (const int64_t spatial : {300, 20000}) {
    Problem<float> problem({6, 1, spatial, false, true, false, false, 1e4});
    Device<float>(problem).run();
    check_channel(problem, 0, 0, 2e-5);
  }
}

void test_nan_stays_in_its_branch() {
  for (const bool channels_last : {false, true}) {
    Problem<float> problem({9, 3, 40, channels_last});
    problem.x[problem.at(1, 0, 0)] = NAN;  // branch 2
    Device<float> device(problem);
    device.statistics();
    device.forward();
    device.backward();
    device.halves();
    for (int64_t c = 0; c < 3; ++c) check_channel(problem, 0, c, 2e-5);
    CHECK(std::isnan(problem.y[problem.at(4, 0, 5)]));
    CHECK(!std::isnan(problem.y[problem.at(4, 1, 5)]));
  }
}

// Ids, and sizes of samples in order, give the same bits; without either everything is in branch 0.
void test_routing() {
  Problem<float> problem({9, 4, 12});
  std::sort(problem.branch_of.begin(), problem.branch_of.end());
  Device<float>(problem).run();
  const std::vector<float> y = problem.y;
  for (const Routing routing : {Routing::kSizes, Routing::kHostSizes}) {
    Device<float>(problem, routing).run();
    CHECK(y == problem.y);
  }
  Options options{9, 4, 12};
  options.one_sided = true;
  Problem<float> single(options);
  Device<float>(single, Routing::kNothing).run();
  check_all(single, 2e-5);
}

// Many branches and samples: offsets come from every one of the blocks, and chunks are looked up in steps of 32.
void test_many_branches() {
  const int64_t samples = 700, branches = 70;
  std::vector<int64_t> ids(samples);
  for (int64_t n = 0; n < samples; ++n) ids[n] = n * 37 % branches;
  const std::vector<float> x = mdprop_test::normal_values<float>(samples * 3, 1), table(branches * 3, 2.0f);
  const DeviceBuffer<float> x_buffer(x), y(samples * 3), mean(table), var(table);
  const DeviceBuffer<int64_t> id_buffer(ids), count(branches);
  for (const bool training : {true, false}) {
    MultiBatchNormShape shape{};
    shape.samples = samples;
    shape.channels = 3;
    shape.spatial = 1;
    shape.branches = branches;
    shape.training = training;
    shape.eps = 1e-5;
    shape.ids = id_buffer.data();
    const DeviceBuffer<unsigned char> workspace(mdprop::workspace_bytes(shape, 4));
    shape.workspace = workspace.data();
    mdprop::multi_batch_norm_forward_cuda<float>(
        {shape, x_buffer.data(), nullptr, nullptr, nullptr, mean.data(), var.data(), y.data(), nullptr, count.data()},
        nullptr);
    for (int64_t b = 0; b < branches; ++b) CHECK(count[b] == 10);
    for (int64_t n = 0; n < samples; ++n) {
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t at = ids[n] * 3 + c;
        const double expected = (x[n * 3 + c] - mean[at]) / std::sqrt(var[at] + 1e-5);
        CHECK_NEAR(y[n * 3 + c], expected, 1e-5 * (1 + std::fabs(expected)));
      }
    }
  }
}

template <typename Body>
void check_refused(const char* message, const Body& body) {
  std::string text;
  try {
    body();
  } catch (const std::exception& error) {
    text = error.what();
  }
  CHECK(text.find(message) != std::string::npos);
}

void test_wrong_branches_are_refused() {
  Problem<float> problem({4, 2, 3});
  for (const int64_t bad : {-1, 3}) {
    problem.branch_of[2] = bad;
    check_refused("ids must be in [0, B)", [&] { Device<float>(problem).statistics(); });
  }
  problem.offsets = {0, 1, 2, 3};
  check_refused("add up to N", [&] { Device<float>(problem, Routing::kSizes).statistics(); });
}

}  // namespace

int main() {
  test_width<float>(4);
  test_width<float>(1);
  test_width<double>(1);
  for (const int width : {8, 4, 1}) {
    test_width<mdprop::BFloat16>(width);
    test_width<mdprop::Half>(width);
  }
  test_one_sided<float>();
  test_one_sided<mdprop::BFloat16>();
  test_many_chunks();
  test_large_mean();
  test_nan_stays_in_its_branch();
  test_routing();
  test_many_branches();
  test_wrong_branches_are_refused();
  return test_summary();
}
