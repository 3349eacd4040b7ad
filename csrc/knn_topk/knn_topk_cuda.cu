// knn_topk on the card. Queries pass in chunks, so that lists of candidates fit the scratch memory; for each chunk,
// points pass in chunks too:
//   rows      each query's group, norm and bf16 form           points    the bf16 form of points
//   scan      scores by tensor cores; lists of candidates      measure   their fp64 distances
//   finish    sorted neighbours, and the certificate           direct, finish: once more, where it failed
// A direct search has rows, direct and finish only. No kernel waits for the host: how many certificates failed is read
// on the device.
#include "knn_topk/knn_topk.h"

#include "common/launch.h"
#include "knn_topk/knn_topk_direct.cuh"
#include "knn_topk/knn_topk_finish.cuh"
#include "knn_topk/knn_topk_pack.cuh"
#include "knn_topk/knn_topk_scan.cuh"

namespace mdprop {
namespace {

constexpr int64_t kMostBlocks = int64_t{1} << 14;  // of kernels that go through their work with a stride

unsigned blocks(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

template <typename T>
class CudaSearch {
  using A = acc_t<T>;
  using Key = KeyOf<A>;
  static constexpr bool kDouble = sizeof(T) == sizeof(double);

 public:
  CudaSearch(const KnnTopkArgs<T>& args, void* stream)
      : args_(args),
        stream_(stream),
        plan_(knn_cuda_plan(args)),
        buffers_(knn_cuda_buffers(plan_, args.dim, kDouble, args.workspace)) {}

  void run() {
    if (args_.query_offsets != nullptr) {
      check_offsets(args_.query_offsets, args_.point_offsets, args_.num_groups, args_.num_queries, args_.num_points,
                    stream_);
    }
    if constexpr (!kDouble) {
      if (centre() != nullptr) {
        launch<knn_centre_kernel<T>>(blocks(args_.dim, kWarpSize), kRowWarps * kWarpSize, 0, stream_, args_.points,
                                     args_.num_points, args_.dim, buffers_.centre);
      }
    }
    for (first_query_ = 0; first_query_ < args_.num_queries; first_query_ += plan_.rows) {
      num_rows_ = std::min(plan_.rows, args_.num_queries - first_query_);
      prepare_rows();
      if (plan_.direct) {
        search_directly(false);
        continue;
      }
      if constexpr (!kDouble) {
        filter();
        finish(false, true);
        launch<knn_list_failed_kernel>(1, kListThreads, 0, stream_, buffers_.failed, num_rows_, buffers_.listed,
                                       buffers_.listed_count);
        search_directly(true);
      }
    }
  }

 private:
  const float* centre() const {
    const bool centred = !plan_.direct && is_euclidean(args_.metric) && args_.num_points > 0;
    return centred ? buffers_.centre : nullptr;
  }
  RowSource<T> source(const T* rows, bool unit) const { return {rows, centre(), args_.dim, plan_.padded_dim, unit}; }
  const T* queries() const { return args_.queries + first_query_ * args_.dim; }
  // The chunk's queries, filled up to whole blocks.
  int64_t padded_rows() const { return knn_round_up(num_rows_, plan_.block_rows); }

  void prepare_rows() {
    RowsArgs<T> rows;
    rows.source = source(args_.queries, !is_euclidean(args_.metric));
    rows.first_row = first_query_;
    rows.num_rows = num_rows_;
    rows.padded_rows = padded_rows();
    rows.query_offsets = args_.query_offsets;
    rows.point_offsets = args_.point_offsets;
    rows.num_groups = args_.num_groups;
    rows.num_points = args_.num_points;
    rows.splits = static_cast<int>(plan_.splits);
    rows.begins = buffers_.row_begins;
    rows.ends = buffers_.row_ends;
    rows.squares = buffers_.squares;
    rows.counts = buffers_.counts;
    rows.thresholds = buffers_.thresholds;
    rows.bounds = buffers_.query_bounds;
    rows.values = buffers_.query_values;
    launch<knn_rows_kernel<T>>(blocks(rows.padded_rows, kRowWarps), kRowWarps * kWarpSize, 0, stream_, rows);
  }

  void filter() {
    for (int64_t first = 0; first < args_.num_points; first += plan_.chunk_points) {
      PointsArgs<T> points;
      points.source = source(args_.points, args_.metric == KnnMetric::kCosine);
      points.first_point = first;
      points.num_points = std::min(plan_.chunk_points, args_.num_points - first);
      points.padded_points = knn_round_up(points.num_points, kKnnFilterPoints);
      points.euclidean = is_euclidean(args_.metric);
      points.bounds = buffers_.point_bounds;
      points.values = buffers_.point_values;
      // One chunk of points stays from one chunk of queries to the next.
      if (first_query_ == 0 || args_.num_points > plan_.chunk_points) {
        launch<knn_points_kernel<T>>(blocks(points.padded_points, kRowWarps), kRowWarps * kWarpSize, 0, stream_,
                                     points);
      }
      if (plan_.block_rows == kKnnFilterRows) {
        scan<kKnnFilterRows>(first, points.padded_points);
      } else {
        scan<2 * kKnnFilterRows>(first, points.padded_points);
      }
    }
    MeasureArgs<T> measure;
    measure.queries = queries();
    measure.points = args_.points;
    measure.squares = buffers_.squares;
    measure.keys = static_cast<NarrowKey*>(buffers_.keys);
    measure.counts = buffers_.counts;
    measure.rows = num_rows_;
    measure.dim = args_.dim;
    measure.splits = static_cast<int>(plan_.splits);
    measure.capacity = static_cast<int>(plan_.capacity);
    measure.metric = args_.metric;
    launch<knn_measure_kernel<T>>(blocks(num_rows_ * plan_.splits, kMeasureWarps), kMeasureWarps * kWarpSize, 0,
                                  stream_, measure);
  }

  template <int kRows>
  void scan(int64_t first_point, int64_t padded_points) {
    ScanArgs scan;
    scan.queries = buffers_.query_values;
    scan.query_bounds = buffers_.query_bounds;
    scan.begins = buffers_.row_begins;
    scan.ends = buffers_.row_ends;
    scan.points = buffers_.point_values;
    scan.point_bounds = buffers_.point_bounds;
    scan.keys = static_cast<NarrowKey*>(buffers_.keys);
    scan.counts = buffers_.counts;
    scan.thresholds = buffers_.thresholds;
    scan.first_point = static_cast<int>(first_point);
    scan.padded_points = static_cast<int>(padded_points);
    scan.rows = static_cast<int>(padded_rows());
    scan.padded_dim = static_cast<int>(plan_.padded_dim);
    scan.splits = static_cast<int>(plan_.splits);
    scan.kept = static_cast<int>(plan_.kept);
    scan.capacity = static_cast<int>(plan_.capacity);
    const int slots = scan_slots<kRows>(plan_.padded_dim);
    launch<knn_scan_kernel<kRows>>(blocks(scan.rows, kRows) * static_cast<unsigned>(plan_.splits),
                                   ScanShared<kRows>::kThreads, scan_shared_bytes<kRows>(slots), stream_, scan, slots);
  }

  // All queries of the chunk, or those that are listed as failed.
  void search_directly(bool failed) {
    DirectArgs<T> direct;
    direct.queries = queries();
    direct.points = args_.points;
    direct.begins = buffers_.row_begins;
    direct.ends = buffers_.row_ends;
    direct.squares = buffers_.squares;
    direct.listed = failed ? buffers_.listed : nullptr;
    direct.listed_count = failed ? buffers_.listed_count : nullptr;
    direct.keys = static_cast<Key*>(buffers_.keys);
    direct.counts = buffers_.counts;
    direct.rows = num_rows_;
    direct.num_points = args_.num_points;
    direct.dim = args_.dim;
    direct.lists = plan_.rows * plan_.splits;
    direct.kept = static_cast<int>(plan_.k);
    direct.capacity = static_cast<int>(plan_.capacity);
    direct.metric = args_.metric;
    // How many certificates failed is not known here: enough blocks for any number, which go through the work with a
    // stride.
    const int64_t tiles = blocks(num_rows_, kKnnDirectRows);
    const int64_t items = tiles * (failed ? knn_most_splits(args_.num_points, plan_.k, sizeof(Key)) : plan_.splits);
    launch<knn_direct_kernel<T>>(static_cast<unsigned>(std::min(items, kKnnBlocks * 2)), kDirectThreads, 0, stream_,
                                 direct);
    finish(failed, false);
  }

  void finish(bool failed, bool certify) {
    FinishArgs<Key> finish;
    finish.keys = static_cast<Key*>(buffers_.keys);
    finish.counts = buffers_.counts;
    finish.listed = failed ? buffers_.listed : nullptr;
    finish.listed_count = failed ? buffers_.listed_count : nullptr;
    finish.begins = buffers_.row_begins;
    finish.ends = buffers_.row_ends;
    finish.squares = buffers_.squares;
    finish.thresholds = certify ? buffers_.thresholds : nullptr;
    finish.failed = certify ? buffers_.failed : nullptr;
    finish.distances = args_.distances + first_query_ * args_.k;
    finish.indices = args_.indices + first_query_ * args_.k;
    finish.rows = num_rows_;
    finish.num_points = args_.num_points;
    finish.dim = args_.dim;
    finish.lists = plan_.rows * plan_.splits;
    finish.kept = static_cast<int>(plan_.k);
    finish.capacity = static_cast<int>(plan_.capacity);
    finish.k = args_.k;
    finish.metric = args_.metric;
    launch<knn_finish_kernel<Key>>(static_cast<unsigned>(std::min(num_rows_, kMostBlocks)), kFinishThreads, 0, stream_,
                                   finish, certify ? static_cast<int>(plan_.splits) : 0);
  }

  const KnnTopkArgs<T>& args_;
  void* const stream_;
  const KnnCudaPlan plan_;
  const KnnCudaBuffers buffers_;
  int64_t first_query_ = 0, num_rows_ = 0;  // the chunk of queries
};

}  // namespace

template <typename T>
void knn_topk_cuda(const KnnTopkArgs<T>& args, void* stream) {
  if (args.num_queries > 0) CudaSearch<T>(args, stream).run();
}

template void knn_topk_cuda<float>(const KnnTopkArgs<float>&, void*);
template void knn_topk_cuda<double>(const KnnTopkArgs<double>&, void*);
template void knn_topk_cuda<BFloat16>(const KnnTopkArgs<BFloat16>&, void*);
template void knn_topk_cuda<Half>(const KnnTopkArgs<Half>&, void*);

}  // namespace mdprop
