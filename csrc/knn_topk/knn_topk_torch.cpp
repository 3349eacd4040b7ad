#include "knn_topk/knn_topk.h"

#include <limits>
#include <string>
#include <tuple>

#include "common/torch_device.h"
#include "common/torch_groups.h"
#include "knn_topk/knn_topk_cuda_plan.h"

namespace mdprop {
namespace {

KnnMetric metric_of(const std::string& name) {
  if (name == "sqeuclidean") return KnnMetric::kSquaredEuclidean;
  if (name == "euclidean") return KnnMetric::kEuclidean;
  if (name == "cosine") return KnnMetric::kCosine;
  STD_TORCH_CHECK(name == "dot", "knn_topk: metric must be sqeuclidean, euclidean, cosine or dot, got '", name, "'");
  return KnnMetric::kDot;
}

void check_rows(const Tensor& queries, const Tensor& points) {
  STD_TORCH_CHECK(queries.dim() == 2 && points.dim() == 2 && queries.size(1) == points.size(1),
                  "knn_topk: queries must be [Q, D] and points [N, D]");
  STD_TORCH_CHECK(queries.scalar_type() == points.scalar_type(), "knn_topk: queries and points must have one dtype");
  check_device("knn_topk", queries, {{"points", points}});
  STD_TORCH_CHECK(points.size(0) <= std::numeric_limits<int32_t>::max(), "knn_topk: at most 2^31 - 1 points, got ",
                  points.size(0));
}

// queries [Q, D], points [N, D], offsets [G + 1] or none -> distances [Q, k], indices int64 [Q, k]
std::tuple<Tensor, Tensor> knn_topk_tensors(Tensor queries, Tensor points, int64_t k, std::string metric,
                                            std::optional<Tensor> query_offsets, std::optional<Tensor> point_offsets) {
  check_rows(queries, points);
  check_device("knn_topk", queries, {{"query_offsets", query_offsets}, {"point_offsets", point_offsets}});
  const DeviceScope device(queries);
  const Groups groups("knn_topk", device, query_offsets, point_offsets, queries.size(0), points.size(0));
  STD_TORCH_CHECK(k >= 1, "knn_topk: k must be at least 1, got ", k);
  const Tensor queries_dense = torch::stable::contiguous(queries), points_dense = torch::stable::contiguous(points);
  Tensor distances = torch::stable::new_empty(queries, {queries.size(0), k}, accumulate_dtype(queries.scalar_type()));
  Tensor indices = torch::stable::new_empty(queries, {queries.size(0), k}, ScalarType::Long);
  dispatch_floating(queries.scalar_type(), "knn_topk", [&](auto tag) {
    using T = typename decltype(tag)::type;
    KnnTopkArgs<T> args;
    args.queries = data<T>(queries_dense);
    args.points = data<T>(points_dense);
    args.distances = mutable_data<acc_t<T>>(distances);
    args.indices = mutable_data<int64_t>(indices);
    args.num_queries = queries.size(0);
    args.num_points = points.size(0);
    args.dim = queries.size(1);
    args.k = k;
    args.metric = metric_of(metric);
    args.query_offsets = groups.query_offsets();
    args.point_offsets = groups.point_offsets();
    args.num_groups = groups.count();
    std::optional<Tensor> workspace;
    if (device.cuda()) {
      workspace = torch::stable::new_empty(queries, {knn_topk_workspace(args)}, ScalarType::Byte);
      args.workspace = workspace->mutable_data_ptr();
    }
    MDPROP_RUN(knn_topk, device, args);
  });
  return {distances, indices};
}

// The op can be called with any indices, and they are used as addresses. On a card a kernel checks them.
void check_indices(const Tensor& indices, int64_t num_points) {
  const int64_t* values = data<int64_t>(indices);
  for (int64_t i = 0; i < indices.numel(); ++i) {
    STD_TORCH_CHECK(values[i] >= kNoNeighbour && values[i] < num_points, "knn_topk_backward: indices must be in [-1, ",
                    num_points, "), got ", values[i]);
  }
}

// grad, distances, indices [Q, k], queries [Q, D], points [N, D] -> grad_queries [Q, D], grad_points [N, D]
std::tuple<Tensor, Tensor> knn_topk_backward_tensors(Tensor grad, Tensor queries, Tensor points, Tensor distances,
                                                     Tensor indices, std::string metric) {
  check_rows(queries, points);
  STD_TORCH_CHECK(same_shape(grad, distances) && same_shape(grad, indices) && grad.dim() == 2 &&
                      grad.size(0) == queries.size(0) && grad.size(1) >= 1,
                  "knn_topk_backward: grad, distances and indices must be [Q, k]");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long, "knn_topk_backward: indices must be int64");
  check_device("knn_topk_backward", queries, {{"grad", grad}, {"distances", distances}, {"indices", indices}});
  const ScalarType dtype = accumulate_dtype(queries.scalar_type());
  const Tensor grad_dense = as_dtype(grad, dtype), distances_dense = as_dtype(distances, dtype),
               indices_dense = torch::stable::contiguous(indices), queries_dense = torch::stable::contiguous(queries),
               points_dense = torch::stable::contiguous(points);
  const DeviceScope device(queries);
  if (!device.cuda()) check_indices(indices_dense, points.size(0));
  Tensor grad_queries = torch::stable::new_empty(queries, {queries.size(0), queries.size(1)});
  Tensor grad_points = torch::stable::new_empty(points, {points.size(0), points.size(1)});
  dispatch_floating(queries.scalar_type(), "knn_topk_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    KnnTopkBackwardArgs<T> args;
    args.grad = data<acc_t<T>>(grad_dense);
    args.queries = data<T>(queries_dense);
    args.points = data<T>(points_dense);
    args.distances = data<acc_t<T>>(distances_dense);
    args.indices = data<int64_t>(indices_dense);
    args.grad_queries = mutable_data<T>(grad_queries);
    args.grad_points = mutable_data<T>(grad_points);
    args.num_queries = queries.size(0);
    args.num_points = points.size(0);
    args.dim = queries.size(1);
    args.k = grad.size(1);
    args.metric = metric_of(metric);
    std::optional<Tensor> workspace;
    if (device.cuda()) {
      workspace = torch::stable::new_empty(queries, {knn_topk_backward_workspace(args)}, ScalarType::Byte);
      args.workspace = workspace->mutable_data_ptr();
    }
    MDPROP_RUN(knn_topk_backward, device, args);
  });
  return {grad_queries, grad_points};
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("knn_topk", TORCH_BOX(&mdprop::knn_topk_tensors));
  module.impl("knn_topk_backward", TORCH_BOX(&mdprop::knn_topk_backward_tensors));
}
