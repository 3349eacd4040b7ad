// hamming_topk on the CPU: how the work is cut. By queries, and where there are few queries and many codes, by codes;
// the parts of a cut by codes are merged by the selection that searches them.
#include "hamming_topk/hamming_topk.h"

#include "common/parallel.h"
#include "common/scratch.h"
#include "hamming_topk/hamming_topk_groups.h"
#include "hamming_topk/hamming_topk_scan.h"
#include "hamming_topk/hamming_topk_select.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kQueriesToCut = 512;  // with that many queries, cut the queries and not the codes
constexpr int64_t kMinPartCodes = int64_t{1} << 14;
constexpr int64_t kMaxParts = 32;
constexpr int64_t kMinTaskPairs = int64_t{1} << 18;

// Searches `codes` for `queries`, of which out has the rows from first_row on. Tiles of queries bound the memory.
void search(const HammingTopkArgs<uint64_t>& args, Range queries, Range codes, int64_t first_row,
            const Neighbours& out) {
  const int64_t k = minimum(out.k, codes.size());
  if (k == 0) {
    for (int64_t row = first_row; row < first_row + queries.size(); ++row) out.pad(row, 0);
    return;
  }
  const int64_t tile_queries = maximum(1, kHammingTileBytes / TileSelection::bytes_per_query(k, args.bits));
  for (int64_t first = queries.begin; first < queries.end; first += tile_queries) {
    const Range some{first, minimum(first + tile_queries, queries.end)};
    TileSelection tile(some.size(), k, args.bits);
    preview(args, k, some, codes, tile);
    scan(args, some, codes, tile);
    tile.finish(first_row + (first - queries.begin), out);
  }
}

// How many parts of a group's codes are worth a thread each; 1 where the group is cut by queries. Parts of at least 64
// k codes keep the selections that each begins afresh a small share of the work.
int64_t count_parts(const HammingTopkArgs<uint64_t>& args, Range codes) {
  if (args.num_queries >= kQueriesToCut || codes.size() == 0) return 1;
  const int64_t k = minimum(args.k, codes.size());
  const int64_t wanted = minimum(kMaxParts, codes.size() / maximum(kMinPartCodes, 64 * k));
  const int64_t fitting = kHammingMergeBytes / (maximum(args.num_queries, 1) * k * Neighbours::kPairBytes);
  return maximum(1, minimum(wanted, fitting));
}

void search_by_parts(const HammingTopkArgs<uint64_t>& args, Range queries, Range codes, int64_t parts,
                     const Neighbours& out) {
  const int64_t rows = queries.size(), k = minimum(args.k, codes.size());
  Scratch<int32_t> distances(parts * rows * k);
  Scratch<int64_t> indices(parts * rows * k);
  const Neighbours found{distances.data(), indices.data(), k};
  // A thread takes neighbouring parts as one, whose result goes to the first part's rows; the others stay empty.
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    const Range some{codes.begin + codes.size() * begin / parts, codes.begin + codes.size() * end / parts};
    search(args, queries, some, begin * rows, found);
    for (int64_t row = (begin + 1) * rows; row < end * rows; ++row) indices[row * k] = kNoIndex;
  });
  parallel_for(rows, maximum(1, kMinTaskPairs / (parts * k)), [&](int64_t begin, int64_t end) {
    for (int64_t query = begin; query < end; ++query) {
      TileSelection merged(1, k, args.bits);
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = (part * rows + query) * k;
        for (int64_t i = first; i < first + k && indices[i] != kNoIndex; ++i) {
          merged[0].offer(distances[i], indices[i]);
        }
      }
      merged.finish(queries.begin + query, out);
    }
  });
}

}  // namespace

template <typename Word>
void hamming_topk(const HammingTopkArgs<Word>& args) {
  const int64_t all_queries[] = {0, args.num_queries}, all_codes[] = {0, args.num_codes};
  const bool grouped = args.query_offsets != nullptr;
  const GroupOffsets groups = grouped ? GroupOffsets{args.query_offsets, args.point_offsets, args.num_groups}
                                      : GroupOffsets{all_queries, all_codes, 1};
  const Neighbours out{args.distances, args.indices, args.k};
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t parts = count_parts(args, groups.points(group));
    if (parts > 1) search_by_parts(args, groups.queries(group), groups.points(group), parts, out);
  }
  for_each_group(groups, kMinTaskPairs, [&](Range queries, Range codes) {
    if (count_parts(args, codes) == 1) search(args, queries, codes, queries.begin, out);
  });
}

template void hamming_topk<uint64_t>(const HammingTopkArgs<uint64_t>&);

}  // namespace mdprop::MDPROP_ISA
