// hamming_topk on a card, in three kernels: where the work of each group begins, the scan, and the merge.
//
// A block scans a split of the codes for a tile of queries and keeps the nearest as keys in scratch memory
// (hamming_topk_scan.cuh); splits are many where queries are few. The merge selects among the splits of a query and
// sorts. Passes find kPassNeighbours each, so a larger k costs a scan for every 2,048. All is exact integer arithmetic
// on keys that are all different: results depend neither on the order of threads and blocks nor on the device.
//
// This is the POPC path. Tensor cores could count bits faster, but those of sm_90a know only AND on single bits, so the
// operands have to be laid out anew with their complements: a path to write and measure with such a card at hand.
#include "hamming_topk/hamming_topk.h"

#include "common/launch.h"
#include "common/vector.cuh"
#include "hamming_topk/hamming_topk_keys.cuh"
#include "hamming_topk/hamming_topk_plan.h"
#include "hamming_topk/hamming_topk_scan.cuh"

namespace mdprop {
namespace {

constexpr int kItemsThreads = 256;
constexpr int kMergeThreads = 256;
constexpr int kWarpNeighbours = 64;  // up to that many, a warp merges the splits of a query, else a block
constexpr int64_t kWarpKeys = 2048;  // of all splits

struct ItemsSpace {
  int64_t warp_sums[kItemsThreads / kWarpSize];
};

// Checks the offsets, which are addresses to the other kernels.
__device__ void check_offsets(const HammingTopkArgs<uint64_t>& args, int64_t group) {
  const auto rises = [&](const int64_t* offsets, int64_t rows) {
    return (group > 0 || offsets[0] == 0) && offsets[group] <= offsets[group + 1] &&
           (group + 1 < args.num_groups || offsets[args.num_groups] == rows);
  };
  device_check(rises(args.query_offsets, args.num_queries),
               "hamming_topk: query_offsets must start at 0, never decrease and end at the number of queries");
  device_check(rises(args.point_offsets, args.num_codes),
               "hamming_topk: point_offsets must start at 0, never decrease and end at the number of codes");
}

// items [G + 1]: how many pieces of work come before each group. One block, of which each thread sums neighbouring
// groups.
__global__ void __launch_bounds__(kItemsThreads)
    hamming_items_kernel(const __grid_constant__ HammingTopkLaunch launch, int64_t* items) {
  auto& space = shared_storage<ItemsSpace>();
  const int64_t groups = launch.args.num_groups, thread = threadIdx.x;
  const int64_t first = groups * thread / kItemsThreads, last = groups * (thread + 1) / kItemsThreads;
  const auto items_of = [&](int64_t group) {
    const GroupRows rows = group_rows(launch, group);
    return rows.tiles() * rows.splits(launch.plan);
  };
  int64_t sum = 0;
  for (int64_t group = first; group < last; ++group) {
    check_offsets(launch.args, group);
    sum += items_of(group);
  }
  int64_t before = sum;
  for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
    const int64_t other = __shfl_up_sync(kAllLanes, before, lanes);
    if (lane_id() >= lanes) before += other;
  }
  if (lane_id() == kWarpSize - 1) space.warp_sums[warp_id()] = before;
  before -= sum;
  __syncthreads();
  for (int warp = 0; warp < warp_id(); ++warp) before += space.warp_sums[warp];
  for (int64_t group = first; group < last; ++group) {
    items[group] = before;
    before += items_of(group);
  }
  if (thread == kItemsThreads - 1) items[groups] = before;
}

template <int kWords, bool kOneUnit>
__global__ void __launch_bounds__(kTileThreads, 2)
    hamming_scan_kernel(const __grid_constant__ HammingTopkLaunch launch) {
  Scan<kWords, kOneUnit> scan(launch, shared_storage<ScanSpace>());
  const GroupRows all = group_rows(launch, 0);
  const int64_t items =
      launch.items == nullptr ? all.tiles() * all.splits(launch.plan) : launch.items[launch.args.num_groups];
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) scan.run(item);
}

template <int kThreads>
struct MergeSpace {
  static constexpr int kKeys = kThreads == kWarpSize ? kWarpNeighbours : kPassNeighbours;

  SelectSpace select;
  int kept;
  uint64_t keys[kKeys];
};

template <int kThreads>
struct MergeSpaces {
  MergeSpace<kThreads> teams[kMergeThreads / kThreads];
};

// A team of kThreads merges the splits of one query and writes its neighbours, in order.
template <int kThreads>
__global__ void __launch_bounds__(kMergeThreads)
    hamming_merge_kernel(const __grid_constant__ HammingTopkLaunch launch) {
  using Threads = Team<kThreads>;
  constexpr int kTeams = kMergeThreads / kThreads;
  const auto& args = launch.args;
  const auto& plan = launch.plan;
  const int team = static_cast<int>(threadIdx.x) / kThreads;
  auto& space = shared_storage<MergeSpaces<kThreads>>().teams[team];
  const int64_t query = launch.first_query + int64_t{blockIdx.x} * kTeams + team;
  if (query >= launch.last_query) return;
  const int64_t group = args.query_offsets == nullptr ? 0 : find_group(args.query_offsets, args.num_groups, query);
  const int64_t slots = group_rows(launch, group).splits(plan) * plan.pass_k;
  const uint64_t* found = launch.partial + (query - launch.first_query) * plan.splits * plan.pass_k;
  uint64_t pivot = kNoKey - 1;
  if (slots > plan.pass_k) {
    pivot = select_pivot<kThreads>(found, slots, plan.pass_k, plan.key_bits, space.select);
  }
  if (Threads::rank() == 0) space.kept = 0;
  Threads::sync();
  for (int64_t i = Threads::rank(); i < slots; i += kThreads) {
    if (found[i] <= pivot) space.keys[atomicAdd(&space.kept, 1)] = found[i];
  }
  Threads::sync();
  const int kept = space.kept;
  int size = 1;
  while (size < kept) size *= 2;
  for (int i = kept + Threads::rank(); i < size; i += kThreads) space.keys[i] = kNoKey;
  Threads::sync();
  sort_keys<kThreads>(space.keys, size);
  // The last pass also writes what does not exist.
  const int64_t remaining = args.k - launch.first_neighbour;
  const bool last_pass = launch.first_neighbour + plan.pass_k >= min(args.k, args.num_codes);
  const int64_t columns = last_pass ? remaining : plan.pass_k, row = query * args.k + launch.first_neighbour;
  for (int64_t i = Threads::rank(); i < columns; i += kThreads) {
    const bool exists = i < kept;
    args.distances[row + i] = exists ? static_cast<int32_t>(space.keys[i] >> plan.index_bits) : kNoDistance;
    args.indices[row + i] =
        exists ? static_cast<int64_t>(space.keys[i] & ((uint64_t{1} << plan.index_bits) - 1)) : kNoIndex;
  }
}

void launch_scan(const HammingTopkLaunch& launched, void* stream) {
  const auto& args = launched.args;
  const int64_t words = word_count(args.bits);
  const bool aligned = words % 2 == 0 && is_aligned(args.codes) && is_aligned(args.queries);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(launched.plan.blocks, 2 * multiprocessor_count()));
  if (words == 1) {
    launch<hamming_scan_kernel<1, true>>(blocks, kTileThreads, 0, stream, launched);
  } else if (!aligned) {
    launch<hamming_scan_kernel<1, false>>(blocks, kTileThreads, 0, stream, launched);
  } else if (words == 2) {
    launch<hamming_scan_kernel<2, true>>(blocks, kTileThreads, 0, stream, launched);
  } else {
    launch<hamming_scan_kernel<2, false>>(blocks, kTileThreads, 0, stream, launched);
  }
}

void launch_merge(const HammingTopkLaunch& launched, void* stream) {
  const int64_t queries = launched.last_query - launched.first_query;
  constexpr int kTeams = kMergeThreads / kWarpSize;
  if (launched.plan.pass_k <= kWarpNeighbours && launched.plan.splits * launched.plan.pass_k <= kWarpKeys) {
    const auto blocks = static_cast<unsigned>(count_pieces(queries, kTeams));
    launch<hamming_merge_kernel<kWarpSize>>(blocks, kMergeThreads, 0, stream, launched);
  } else {
    launch<hamming_merge_kernel<kMergeThreads>>(static_cast<unsigned>(queries), kMergeThreads, 0, stream, launched);
  }
}

}  // namespace

template <typename Word>
void hamming_topk_cuda(const HammingTopkArgs<Word>& args, void* stream) {
  const HammingTopkPlan plan = plan_hamming_topk(args);
  auto* items = reinterpret_cast<int64_t*>(args.workspace + plan.items_at);
  HammingTopkLaunch launched{args,
                             plan,
                             0,
                             0,
                             0,
                             args.query_offsets == nullptr ? nullptr : items,
                             reinterpret_cast<uint64_t*>(args.workspace),
                             reinterpret_cast<uint64_t*>(args.workspace + plan.candidates_at)};
  for (int64_t query = 0; query < args.num_queries; query += plan.chunk_queries) {
    launched.first_query = query;
    launched.last_query = std::min(query + plan.chunk_queries, args.num_queries);
    if (launched.items != nullptr) launch<hamming_items_kernel>(1, kItemsThreads, 0, stream, launched, items);
    launched.first_neighbour = 0;
    do {
      launch_scan(launched, stream);
      launch_merge(launched, stream);
      launched.first_neighbour += plan.pass_k;
    } while (launched.first_neighbour < std::min(args.k, args.num_codes));
  }
}

template void hamming_topk_cuda<uint64_t>(const HammingTopkArgs<uint64_t>&, void*);

}  // namespace mdprop
