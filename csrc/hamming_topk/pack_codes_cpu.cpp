#include "hamming_topk/hamming_topk.h"

#include <cstring>

#include "common/parallel.h"
#include "hamming_topk/hamming_topk_math.h"

namespace mdprop::MDPROP_ISA {
namespace {

constexpr int64_t kBitsPerTask = int64_t{1} << 15;

// Eight bytes of 0 or 1 to eight bits: the product gathers byte i at bit 56 + i, and no two terms meet.
uint64_t gather_bits(const uint8_t* flags) {
  uint64_t bytes;
  std::memcpy(&bytes, flags, sizeof(bytes));
  return bytes * 0x0102040810204080u >> 56;
}

// `count` <= 64 values to one word.
template <typename T>
uint64_t pack_word(const T* values, int64_t count) {
  uint8_t flags[kWordBits];
  if (count == kWordBits) {
    for (int64_t i = 0; i < kWordBits; ++i) flags[i] = is_positive(values[i]);
  } else {
    std::memset(flags, 0, sizeof(flags));
    for (int64_t i = 0; i < count; ++i) flags[i] = is_positive(values[i]);
  }
  uint64_t word = 0;
  for (int64_t byte = 0; byte < 8; ++byte) word |= gather_bits(flags + 8 * byte) << (8 * byte);
  return word;
}

// Low enough to share out small inputs, high enough to pay for a thread.
int64_t rows_per_task(int64_t bits) { return kBitsPerTask / bits + 1; }

}  // namespace

template <typename T>
void pack_codes(const PackCodesArgs<T>& args) {
  const int64_t words = word_count(args.bits);
  parallel_for(args.num_codes, rows_per_task(args.bits), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* code = args.codes + row * args.bits;
      for (int64_t word = 0; word < words; ++word) {
        const int64_t left = args.bits - word * kWordBits;
        args.packed[row * words + word] = pack_word(code + word * kWordBits, left < kWordBits ? left : kWordBits);
      }
    }
  });
}

template <typename T>
void unpack_codes(const UnpackCodesArgs<T>& args) {
  const int64_t words = word_count(args.bits);
  parallel_for(args.num_codes, rows_per_task(args.bits), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint64_t* packed = args.packed + row * words;
      T* code = args.codes + row * args.bits;
      for (int64_t bit = 0; bit < args.bits; bit += 8) {
        const uint64_t bytes = scatter_bits(packed[bit / kWordBits] >> (bit % kWordBits));
        std::memcpy(code + bit, &bytes, args.bits - bit < 8 ? args.bits - bit : 8);
      }
    }
  });
}

template void pack_codes<uint8_t>(const PackCodesArgs<uint8_t>&);
template void pack_codes<int8_t>(const PackCodesArgs<int8_t>&);
template void pack_codes<int16_t>(const PackCodesArgs<int16_t>&);
template void pack_codes<int32_t>(const PackCodesArgs<int32_t>&);
template void pack_codes<int64_t>(const PackCodesArgs<int64_t>&);
template void pack_codes<float>(const PackCodesArgs<float>&);
template void pack_codes<double>(const PackCodesArgs<double>&);
template void pack_codes<Half>(const PackCodesArgs<Half>&);
template void pack_codes<BFloat16>(const PackCodesArgs<BFloat16>&);
template void unpack_codes<uint8_t>(const UnpackCodesArgs<uint8_t>&);

}  // namespace mdprop::MDPROP_ISA
