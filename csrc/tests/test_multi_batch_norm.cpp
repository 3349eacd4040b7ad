// multi_batch_norm on the CPU, forward, backward and in halves, against naive loops in fp64; the kernels on its tables.
#include "multi_batch_norm/multi_batch_norm.h"

#include "multi_batch_norm/multi_batch_norm_tables.h"
#include "tests/multi_batch_norm_problem.h"

namespace {

using namespace norm_problem;

template <typename T>
mdprop::MultiBatchNormBackwardArgs<T> backward_args(Problem<T>& p) {
  mdprop::MultiBatchNormBackwardArgs<T> args{};
  args.shape = p.shape;
  args.grad = p.grad.data();
  args.x = p.x.data();
  args.mask = p.mask.empty() ? nullptr : p.mask.data();
  args.weight = p.weight.data();
  args.bias = p.bias.data();
  args.mean = p.mean.data();
  args.var = p.var.data();
  args.grad_x = p.grad_x.data();
  args.grad_residual = p.mask.empty() ? nullptr : p.grad_residual.data();
  args.grad_weight = p.grad_weight.data();
  args.grad_bias = p.grad_bias.data();
  return args;
}

template <typename T>
void run(Problem<T>& p) {
  mdprop::multi_batch_norm_statistics_cpu<T>({p.shape, p.x.data(), p.moments.data()});
  mdprop::multi_batch_norm_forward_cpu<T>({p.shape, p.x.data(), p.residual.empty() ? nullptr : p.residual.data(),
                                           p.weight.data(), p.bias.data(), p.mean.data(), p.var.data(), p.y.data(),
                                           p.mask.empty() ? nullptr : p.mask.data(), p.count.data()});
  auto args = backward_args(p);
  mdprop::multi_batch_norm_backward_cpu(args);
  // The halves: sums alone, then the gradient from them.
  const std::vector<T> grad_x = p.grad_x;
  args.grad_x = args.grad_residual = nullptr;
  args.sums = p.sums.data();
  mdprop::multi_batch_norm_backward_cpu(args);
  args = backward_args(p);
  args.total_sums = p.sums.data();
  args.grad_weight = args.grad_bias = nullptr;
  mdprop::multi_batch_norm_backward_cpu(args);
  CHECK(std::memcmp(grad_x.data(), p.grad_x.data(), grad_x.size() * sizeof(T)) == 0);
}

template <typename T>
void test_type() {
  const int64_t shapes[][3] = {{9, 3, 49}, {4, 2, 1024}, {4, 2, 1500}, {40, 5, 1}, {7, 130, 9}, {8, 3, 150}, {3, 1, 2}};
  for (const auto& [samples, channels, spatial] : shapes) {
    for_each_choice([&](bool channels_last, bool training, bool relu, bool residual) {
      Problem<T> problem({samples, channels, spatial, channels_last, training, relu, residual});
      run(problem);
      check_all(problem, kTolerance<T>);
    });
  }
}

// A mean of 10,000 deviations: sums of squares without a shift would lose every digit of the variance in fp32.
void test_large_mean() {
  for (const bool channels_last : {false, true}) {
    Problem<float> problem({16, 4, 300, channels_last, true, false, false, 1e4});
    run(problem);
    for (int64_t c = 0; c < 4; ++c) check_channel(problem, 0, c, 2e-5);
  }
}

// A NaN in one branch stays there.
void test_nan_stays_in_its_branch() {
  for (const bool channels_last : {false, true}) {
    Problem<float> problem({9, 3, 40, channels_last});
    problem.x[problem.at(1, 0, 0)] = NAN;  // branch 2
    run(problem);
    for (int64_t c = 0; c < 3; ++c) check_channel(problem, 0, c, 2e-5);
    CHECK(std::isnan(problem.y[problem.at(4, 0, 5)]));
    CHECK(!std::isnan(problem.y[problem.at(4, 1, 5)]));
  }
}

// More (branch, channel) pairs than branches have samples: one branch a sample, whose weight is the whole scale.
void test_one_branch_a_sample() {
  for (const bool channels_last : {false, true}) {
    Problem<float> p({6, 5, 7, channels_last, false});
    std::vector<int64_t> all(7);
    for (int64_t n = 0; n < 7; ++n) all[n] = n;
    const auto table = mdprop_test::normal_values<float>(6 * 5, 7);
    p.shape.branches = 6;
    p.shape.order = p.shape.offsets = all.data();
    std::vector<float> mean(table);
    mdprop::multi_batch_norm_forward_cpu<float>(
        {p.shape, p.x.data(), nullptr, table.data(), table.data(), mean.data(), nullptr, p.y.data(), nullptr, nullptr});
    for (int64_t i = 0; i < 6 * 5; ++i) {
      for (int64_t s = 0; s < 7; ++s) {
        const int64_t at = p.at(i / 5, i % 5, s);
        CHECK(p.y[at] == (p.x[at] - table[i]) * table[i] + table[i]);
      }
    }
  }
}

// Parts of a batch join to the moments of the whole, in any number; running statistics move by their share.
void test_tables() {
  const std::vector<double> values = mdprop_test::normal_values<double>(12, 8, 1e4);
  std::vector<double> parts;
  for (const auto& [begin, end] : {std::pair{0, 5}, std::pair{5, 5}, std::pair{5, 12}}) {
    double sum = 0, squares = 0;
    for (int i = begin; i < end; ++i) sum += values[i];
    const double mean = end > begin ? sum / (end - begin) : 0;
    for (int i = begin; i < end; ++i) squares += (values[i] - mean) * (values[i] - mean);
    parts.insert(parts.end(), {static_cast<double>(end - begin), mean, squares});
  }
  double mean = 0, var = 0, expected_mean = 0, expected_var = 0;
  int64_t count = 0, batches = 3;
  mdprop::multi_batch_norm_merge_cpu<double>({3, 1, 1, parts.data(), &mean, &var, &count});
  for (const double value : values) expected_mean += value / 12;
  for (const double value : values) expected_var += (value - expected_mean) * (value - expected_mean) / 12;
  CHECK(count == 12);
  CHECK_NEAR(mean, expected_mean, 1e-11);
  CHECK_NEAR(var, expected_var, 1e-11);

  double running_mean = 2, running_var = 4;
  mdprop::MultiBatchNormUpdateArgs<double> args{};
  args.branches = args.channels = 1;
  args.running_means[0] = &running_mean;
  args.running_vars[0] = &running_var;
  args.num_batches[0] = &batches;
  args.mean = &mean;
  args.var = &var;
  args.count = &count;
  args.cumulative = true;
  mdprop::multi_batch_norm_update_cpu(args);
  CHECK(batches == 4);
  CHECK_NEAR(running_mean, 0.75 * 2 + 0.25 * mean, 1e-11);
  CHECK_NEAR(running_var, 0.75 * 4 + 0.25 * var * 12 / 11, 1e-11);
}

}  // namespace

int main() {
  test_type<float>();
  test_type<double>();
  test_type<mdprop::BFloat16>();
  test_type<mdprop::Half>();
  test_large_mean();
  test_nan_stays_in_its_branch();
  test_one_branch_a_sample();
  test_tables();
  return test_summary();
}
