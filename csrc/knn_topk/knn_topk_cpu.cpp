// knn_topk on the CPU: groups that are worth all threads run one after the other, the others side by side.
#include "knn_topk/knn_topk.h"

#include "common/parallel.h"
#include "knn_topk/knn_topk_search.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kSharedSteps = 1 << 24;  // multiply-adds of a group that is worth all threads
constexpr int64_t kGroupTasks = 64;

// The rows of one group as a problem without groups.
template <typename T>
KnnTopkArgs<T> one_group(const KnnTopkArgs<T>& args, int64_t group) {
  const int64_t first_query = args.query_offsets[group], first_point = args.point_offsets[group];
  KnnTopkArgs<T> part = args;
  part.queries += first_query * args.dim;
  part.points += first_point * args.dim;
  part.distances += first_query * args.k;
  part.indices += first_query * args.k;
  part.num_queries = args.query_offsets[group + 1] - first_query;
  part.num_points = args.point_offsets[group + 1] - first_point;
  return part;
}

template <typename T>
void search_groups(const KnnTopkArgs<T>& args) {
  const auto search = [&](int64_t group, bool large) {
    const KnnTopkArgs<T> part = one_group(args, group);
    const bool is_large = part.num_queries * part.num_points >= kSharedSteps / (args.dim + 8);
    if (part.num_queries > 0 && is_large == large) Search<T>(part, args.point_offsets[group]).run();
  };
  for (int64_t group = 0; group < args.num_groups; ++group) search(group, true);
  // Neighbouring groups are often alike, so each task takes every kGroupTasks-th.
  const int64_t steps = args.num_queries * (args.num_points / (args.num_groups + 1) + 64) * (args.dim + 8);
  parallel_for(kGroupTasks, 1 + kGroupTasks * kTaskSteps / (steps + 1), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      for (int64_t group = task; group < args.num_groups; group += kGroupTasks) search(group, false);
    }
  });
}

}  // namespace

template <typename T>
void knn_topk(const KnnTopkArgs<T>& args) {
  if (args.query_offsets != nullptr) {
    search_groups(args);
  } else if (args.num_queries > 0) {
    Search<T>(args, 0).run();
  }
}

template void knn_topk<float>(const KnnTopkArgs<float>&);
template void knn_topk<double>(const KnnTopkArgs<double>&);
template void knn_topk<BFloat16>(const KnnTopkArgs<BFloat16>&);
template void knn_topk<Half>(const KnnTopkArgs<Half>&);

}  // namespace mdprop::MDPROP_ISA
