#include "hamming_topk/hamming_topk.h"

#include <limits>
#include <optional>
#include <tuple>

#include "common/torch_device.h"
#include "common/torch_groups.h"
#include "common/torch_stable.h"
#include "hamming_topk/hamming_topk_math.h"
#include "hamming_topk/hamming_topk_plan.h"

namespace mdprop {
namespace {

// Calls body(TypeTag<T>()) with the storage type of `dtype`; bool is stored as bytes of 0 and 1.
template <typename Body>
void dispatch_numbers(ScalarType dtype, const char* op, const Body& body) {
  switch (dtype) {
    case ScalarType::Bool:
    case ScalarType::Byte:
      return body(TypeTag<uint8_t>());
    case ScalarType::Char:
      return body(TypeTag<int8_t>());
    case ScalarType::Short:
      return body(TypeTag<int16_t>());
    case ScalarType::Int:
      return body(TypeTag<int32_t>());
    case ScalarType::Long:
      return body(TypeTag<int64_t>());
    default:
      return dispatch_floating(dtype, op, body);
  }
}

void check_packed(const Tensor& packed, int64_t bits, const char* op) {
  STD_TORCH_CHECK(bits >= 1 && bits < std::numeric_limits<int32_t>::max(), op, ": bits must be in [1, 2^31 - 1), got ",
                  bits);
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Long, op, ": packed codes must be int64");
  STD_TORCH_CHECK(packed.dim() == 2 && packed.size(1) == word_count(bits), op, ": codes of ", bits,
                  " bits must be [N, ", word_count(bits), "]");
}

void check_pair(const Tensor& queries, const Tensor& codes, int64_t bits, const char* op) {
  check_packed(queries, bits, op);
  check_packed(codes, bits, op);
  check_device(op, queries, {{"codes", codes}});
}

// codes [N, K] -> int64 [N, ceil(K / 64)]
Tensor pack_codes_tensor(Tensor codes) {
  STD_TORCH_CHECK(codes.dim() == 2, "pack_codes: codes must be [N, K]");
  const DeviceScope device(codes);
  const Tensor dense = torch::stable::contiguous(codes);
  const int64_t rows = codes.size(0), bits = codes.size(1);
  Tensor packed = torch::stable::new_empty(codes, {rows, word_count(bits)}, ScalarType::Long);
  if (packed.numel() == 0) return packed;
  dispatch_numbers(codes.scalar_type(), "pack_codes", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const PackCodesArgs<T> args{data<T>(dense), mutable_data<uint64_t>(packed), rows, bits};
    MDPROP_RUN(pack_codes, device, args);
  });
  return packed;
}

// packed int64 [N, ceil(bits / 64)] -> bool [N, bits]
Tensor unpack_codes_tensor(Tensor packed, int64_t bits) {
  check_packed(packed, bits, "unpack_codes");
  const DeviceScope device(packed);
  const Tensor dense = torch::stable::contiguous(packed);
  Tensor codes = torch::stable::new_empty(packed, {packed.size(0), bits}, ScalarType::Bool);
  const UnpackCodesArgs<uint8_t> args{data<uint64_t>(dense), mutable_data<uint8_t>(codes), packed.size(0), bits};
  MDPROP_RUN(unpack_codes, device, args);
  return codes;
}

// queries int64 [Q, W], codes int64 [N, W], offsets int64 [G + 1] or both absent
// -> distances int32 [Q, k], indices int64 [Q, k]
std::tuple<Tensor, Tensor> hamming_topk_tensor(Tensor queries, Tensor codes, int64_t k, int64_t bits,
                                               std::optional<Tensor> query_offsets,
                                               std::optional<Tensor> point_offsets) {
  check_pair(queries, codes, bits, "hamming_topk");
  check_device("hamming_topk", queries, {{"query_offsets", query_offsets}, {"point_offsets", point_offsets}});
  STD_TORCH_CHECK(k >= 1, "hamming_topk: k must be at least 1, got ", k);
  const DeviceScope device(queries);
  const Groups groups("hamming_topk", device, query_offsets, point_offsets, queries.size(0), codes.size(0));
  const Tensor queries_dense = torch::stable::contiguous(queries), codes_dense = torch::stable::contiguous(codes);
  Tensor distances = torch::stable::new_empty(queries, {queries.size(0), k}, ScalarType::Int);
  Tensor indices = torch::stable::new_empty(queries, {queries.size(0), k}, ScalarType::Long);
  HammingTopkArgs<uint64_t> args;
  args.queries = data<uint64_t>(queries_dense);
  args.codes = data<uint64_t>(codes_dense);
  args.query_offsets = groups.query_offsets();
  args.point_offsets = groups.point_offsets();
  args.distances = mutable_data<int32_t>(distances);
  args.indices = mutable_data<int64_t>(indices);
  args.num_queries = queries.size(0);
  args.num_codes = codes.size(0);
  args.num_groups = groups.count();
  args.k = k;
  args.bits = bits;
  std::optional<Tensor> workspace;
  if (device.cuda()) {
    workspace = torch::stable::new_empty(queries, {hamming_topk_workspace(args)}, ScalarType::Byte);
    args.workspace = mutable_data<unsigned char>(*workspace);
  }
  MDPROP_RUN(hamming_topk, device, args);
  return {distances, indices};
}

// queries int64 [Q, W], codes int64 [N, W] -> int32 [Q, N]
Tensor hamming_distance_tensor(Tensor queries, Tensor codes, int64_t bits) {
  check_pair(queries, codes, bits, "hamming_distance");
  const DeviceScope device(queries);
  const Tensor queries_dense = torch::stable::contiguous(queries), codes_dense = torch::stable::contiguous(codes);
  const int64_t num_queries = queries.size(0), num_codes = codes.size(0);
  Tensor distances = torch::stable::new_empty(queries, {num_queries, num_codes}, ScalarType::Int);
  const HammingDistanceArgs<uint64_t> args{data<uint64_t>(queries_dense),
                                           data<uint64_t>(codes_dense),
                                           mutable_data<int32_t>(distances),
                                           num_queries,
                                           num_codes,
                                           bits};
  MDPROP_RUN(hamming_distance, device, args);
  return distances;
}

}  // namespace
}  // namespace mdprop

MDPROP_REGISTER_KERNELS(module) {
  module.impl("pack_codes", TORCH_BOX(&mdprop::pack_codes_tensor));
  module.impl("unpack_codes", TORCH_BOX(&mdprop::unpack_codes_tensor));
  module.impl("hamming_topk", TORCH_BOX(&mdprop::hamming_topk_tensor));
  module.impl("hamming_distance", TORCH_BOX(&mdprop::hamming_distance_tensor));
}
