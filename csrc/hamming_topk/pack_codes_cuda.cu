// pack_codes and unpack_codes on a card.
#include "common/device.cuh"
#include "common/launch.h"
#include "common/vector.cuh"
#include "hamming_topk/hamming_topk.h"
#include "hamming_topk/hamming_topk_math.h"

namespace mdprop {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 20;

unsigned block_count(int64_t work, int64_t work_per_block) {
  return static_cast<unsigned>(std::min((work + work_per_block - 1) / work_per_block, kMaxBlocks));
}

// A thread takes 16 bytes of values and a warp the kWarpWords neighbouring words that these make; the threads of a word
// join their bits by shuffles. Rows whose values are not aligned to 16 bytes, and ends of rows, are read value by
// value.
template <typename T>
constexpr int kWarpWords = kWarpSize * kVectorWidth<T> / static_cast<int>(kWordBits);

template <typename T>
__global__ void __launch_bounds__(kThreads) pack_codes_kernel(const __grid_constant__ PackCodesArgs<T> args) {
  constexpr int kValues = kVectorWidth<T>, kLanes = static_cast<int>(kWordBits) / kValues;
  const int64_t row_words = word_count(args.bits), words = args.num_codes * row_words;
  const int64_t step = int64_t{gridDim.x} * (kThreads / kWarpSize) * kWarpWords<T>;
  const int64_t warp = int64_t{blockIdx.x} * (kThreads / kWarpSize) + warp_id();
  const int place = lane_id() % kLanes * kValues;  // of the thread's first value in its word
  for (int64_t first = warp * kWarpWords<T>; first < words; first += step) {
    const int64_t word = first + lane_id() / kLanes;
    const int64_t row = word / row_words, column = word % row_words * kWordBits + place;
    const T* values = args.codes + row * args.bits + column;
    const int64_t left = word < words ? args.bits - column : 0;
    uint64_t bits = 0;
    if (left >= kValues && is_aligned(values)) {
      const auto loaded = load_streaming<kValues>(values);
#pragma unroll
      for (int i = 0; i < kValues; ++i) bits |= uint64_t{is_positive(loaded[i])} << i;
    } else {
      for (int i = 0; i < kValues && i < left; ++i) bits |= uint64_t{is_positive(values[i])} << i;
    }
    bits <<= place;
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) bits |= __shfl_xor_sync(kAllLanes, bits, lanes);
    if (place == 0 && word < words) args.packed[word] = bits;
  }
}

// A thread writes 16 bytes, the values of 16 neighbouring bits of a word where they do not cross the end of a word or
// row.
__global__ void __launch_bounds__(kThreads) unpack_codes_kernel(const __grid_constant__ UnpackCodesArgs<uint8_t> args) {
  constexpr int kValues = kVectorWidth<uint8_t>;
  const int64_t words = word_count(args.bits), count = args.num_codes * args.bits;
  const int64_t step = int64_t{gridDim.x} * kThreads * kValues;
  for (int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kValues; first < count; first += step) {
    int64_t row = first / args.bits, column = first % args.bits;
    const uint64_t* packed = args.packed + row * words;
    if (args.bits - column >= kValues && column % kWordBits <= kWordBits - kValues && is_aligned(args.codes + first)) {
      const uint64_t bits = packed[column / kWordBits] >> (column % kWordBits);
      const Vector<uint64_t, 2> bytes{{scatter_bits(bits), scatter_bits(bits >> 8)}};
      store_streaming(reinterpret_cast<uint64_t*>(args.codes + first), bytes);
      continue;
    }
    for (int64_t i = first; i < min(first + kValues, count); ++i) {
      args.codes[i] = static_cast<uint8_t>(packed[column / kWordBits] >> (column % kWordBits) & 1);
      if (++column == args.bits) {
        column = 0;
        packed += words;
      }
    }
  }
}

}  // namespace

template <typename T>
void pack_codes_cuda(const PackCodesArgs<T>& args, void* stream) {
  const int64_t words = args.num_codes * word_count(args.bits);
  if (words == 0) return;
  launch<pack_codes_kernel<T>>(block_count(words, kThreads / kWarpSize * kWarpWords<T>), kThreads, 0, stream, args);
}

template <typename T>
void unpack_codes_cuda(const UnpackCodesArgs<T>& args, void* stream) {
  const int64_t count = args.num_codes * args.bits;
  if (count == 0) return;
  launch<unpack_codes_kernel>(block_count(count, kThreads * kVectorWidth<T>), kThreads, 0, stream, args);
}

template void pack_codes_cuda<uint8_t>(const PackCodesArgs<uint8_t>&, void*);
template void pack_codes_cuda<int8_t>(const PackCodesArgs<int8_t>&, void*);
template void pack_codes_cuda<int16_t>(const PackCodesArgs<int16_t>&, void*);
template void pack_codes_cuda<int32_t>(const PackCodesArgs<int32_t>&, void*);
template void pack_codes_cuda<int64_t>(const PackCodesArgs<int64_t>&, void*);
template void pack_codes_cuda<float>(const PackCodesArgs<float>&, void*);
template void pack_codes_cuda<double>(const PackCodesArgs<double>&, void*);
template void pack_codes_cuda<Half>(const PackCodesArgs<Half>&, void*);
template void pack_codes_cuda<BFloat16>(const PackCodesArgs<BFloat16>&, void*);
template void unpack_codes_cuda<uint8_t>(const UnpackCodesArgs<uint8_t>&, void*);

}  // namespace mdprop
