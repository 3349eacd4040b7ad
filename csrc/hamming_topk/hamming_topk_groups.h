// Ragged groups of queries and points: the queries of a group see the points of that group alone.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "common/parallel.h"

MDPROP_ISA_BEGIN

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Both arrays are [count + 1], never decrease, start at 0 and end at the number of queries and of points.
struct GroupOffsets {
  const int64_t* query_offsets;
  const int64_t* point_offsets;
  int64_t count;

  Range queries(int64_t group) const { return {query_offsets[group], query_offsets[group + 1]}; }
  Range points(int64_t group) const { return {point_offsets[group], point_offsets[group + 1]}; }
};

// What a query costs beside its pairs, in pairs: it keeps many queries without points from landing in one task.
inline constexpr int64_t kQueryCost = 64;

// Calls body(queries, points) in parallel for ranges that cover all queries, none of them across groups; every task
// gets about the same number of pairs, at least min_pairs. A range is cut by queries, so a body sees all points of its
// group.
template <typename Body>
void for_each_group(const GroupOffsets& groups, int64_t min_pairs, const Body& body) {
  const auto query_cost = [&](int64_t group) { return groups.points(group).size() + kQueryCost; };
  int64_t cost = 0;
  for (int64_t group = 0; group < groups.count; ++group) cost += groups.queries(group).size() * query_cost(group);
  parallel_for((cost + min_pairs - 1) / min_pairs, 1, [&](int64_t first_task, int64_t last_task) {
    const Range wanted{first_task * min_pairs, last_task * min_pairs};
    int64_t before = 0;  // cost of the groups before this one
    for (int64_t group = 0; group < groups.count && before < wanted.end; ++group) {
      const Range queries = groups.queries(group);
      // The first query whose cost begins at `position` or later: a range takes the queries that begin inside it.
      const auto first_at = [&](int64_t position) {
        const int64_t each = query_cost(group);
        const int64_t passed = position <= before ? 0 : (position - before + each - 1) / each;
        return passed < queries.size() ? queries.begin + passed : queries.end;
      };
      const Range some{first_at(wanted.begin), first_at(wanted.end)};
      if (some.size() > 0) body(some, groups.points(group));
      before += queries.size() * query_cost(group);
    }
  });
}

MDPROP_ISA_END
