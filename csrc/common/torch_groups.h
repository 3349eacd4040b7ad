// Ragged groups of rows, as the top-k ops take them: the queries of a group are searched among its points only.
#pragma once

#include <optional>

#include "common/torch_device.h"
#include "common/torch_stable.h"

namespace mdprop {

// Dense and checked offsets; kernels use them as addresses. Without offsets all rows are one group. On a card the host
// cannot read values, so a kernel checks them.
class Groups {
 public:
  // Offsets int64 [G + 1], which increase from 0 to the number of rows; both or none.
  Groups(const char* op, const DeviceScope& device, const std::optional<Tensor>& query_offsets,
         const std::optional<Tensor>& point_offsets, int64_t num_queries, int64_t num_points) {
    STD_TORCH_CHECK(query_offsets.has_value() == point_offsets.has_value(), op,
                    ": query_offsets and point_offsets must be given together");
    if (!query_offsets.has_value()) return;
    query_offsets_ = checked(op, device, "query_offsets", *query_offsets, num_queries);
    point_offsets_ = checked(op, device, "point_offsets", *point_offsets, num_points);
    STD_TORCH_CHECK(query_offsets_->size(0) == point_offsets_->size(0), op,
                    ": query_offsets and point_offsets must have one length, got ", query_offsets_->size(0), " and ",
                    point_offsets_->size(0));
  }

  const int64_t* query_offsets() const { return data<int64_t>(query_offsets_); }
  const int64_t* point_offsets() const { return data<int64_t>(point_offsets_); }
  int64_t count() const { return query_offsets_.has_value() ? query_offsets_->size(0) - 1 : 1; }

 private:
  static Tensor checked(const char* op, const DeviceScope& device, const char* name, const Tensor& offsets,
                        int64_t rows) {
    STD_TORCH_CHECK(offsets.scalar_type() == ScalarType::Long && offsets.dim() == 1 && offsets.size(0) >= 1, op, ": ",
                    name, " must be int64 [G + 1]");
    STD_TORCH_CHECK(offsets.size(0) > 1 || rows == 0, op, ": ", name, " of no group must run over no rows, got ", rows);
    const Tensor dense = torch::stable::contiguous(offsets);
    if (device.cuda()) return dense;
    const int64_t* values = data<int64_t>(dense);
    const int64_t last = dense.size(0) - 1;
    STD_TORCH_CHECK(values[0] == 0 && values[last] == rows, op, ": ", name, " must run from 0 to ", rows, ", got ",
                    values[0], " to ", values[last]);
    for (int64_t group = 0; group < last; ++group) {
      STD_TORCH_CHECK(values[group] <= values[group + 1], op, ": ", name, " must not decrease, got ", values[group],
                      " before ", values[group + 1]);
    }
    return dense;
  }

  std::optional<Tensor> query_offsets_, point_offsets_;
};

}  // namespace mdprop
