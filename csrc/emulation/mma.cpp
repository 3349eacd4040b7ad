#include "emulation/mma.h"

#include <cmath>
#include <cstring>

#include "emulation/machine.h"

namespace mdprop::emulation {
namespace {

struct ProductInput {
  const uint32_t* a;
  const uint32_t* b;
};

float low_bf16(uint32_t pair) {
  const uint32_t bits = pair << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
float high_bf16(uint32_t pair) { return low_bf16(pair >> 16); }

struct MatrixInput {
  const void* row;
  bool transposed;
};

void check_full_warp(uint32_t mask) {
  if (mask != 0xffffffffu) fail("tensor-core instructions need all 32 lanes");
}

// One product of a [16, 16] and b [16, 8]. The card's order of summation and its rounding are its own affair: it aligns
// the products to the largest exponent and may truncate. Here each dot product is summed in fp64 and truncated towards
// zero to fp32, so that code that counts on rounding to nearest fails.
void complete_product(const void* const in[], void* const out[], uint32_t mask) {
  check_full_warp(mask);
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto* input = static_cast<const ProductInput*>(in[lane]);
    const int group = lane / 4, column = lane % 4 * 2;
    for (int part = 0; part < 4; ++part) {
      a[group + part % 2 * 8][column + part / 2 * 8] = low_bf16(input->a[part]);
      a[group + part % 2 * 8][column + part / 2 * 8 + 1] = high_bf16(input->a[part]);
    }
    for (int part = 0; part < 2; ++part) {
      b[column + part * 8][group] = low_bf16(input->b[part]);
      b[column + part * 8 + 1][group] = high_bf16(input->b[part]);
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto* d = static_cast<float*>(out[lane]);
    for (int part = 0; part < 4; ++part) {
      const int row = lane / 4 + part / 2 * 8, column = lane % 4 * 2 + part % 2;
      double sum = d[part];
      for (int k = 0; k < 16; ++k) sum += double{a[row][k]} * b[k][column];
      const auto nearest = static_cast<float>(sum);
      d[part] = std::fabs(nearest) > std::fabs(sum) && std::isfinite(nearest) ? std::nextafter(nearest, 0.0f) : nearest;
    }
  }
}

void complete_matrix(const void* const in[], void* const out[], uint32_t mask) {
  check_full_warp(mask);
  uint16_t tiles[4][8][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const void* row = static_cast<const MatrixInput*>(in[lane])->row;
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: a row is not aligned to 16 bytes");
    std::memcpy(tiles[lane / 8][lane % 8], row, 16);
  }
  const bool transposed = static_cast<const MatrixInput*>(in[0])->transposed;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto* r = static_cast<uint32_t*>(out[lane]);
    const int group = lane / 4, column = lane % 4 * 2;
    for (int tile = 0; tile < 4; ++tile) {
      const auto& t = tiles[tile];
      const uint32_t low = transposed ? t[column][group] : t[group][column];
      const uint32_t high = transposed ? t[column + 1][group] : t[group][column + 1];
      r[tile] = low | high << 16;
    }
  }
}

}  // namespace

void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed) {
  const MatrixInput input{row, transposed};
  warp_collective(0xffffffffu, {"ldmatrix", __FILE__, 0}, &input, r, &complete_matrix);
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const ProductInput input{a, b};
  warp_collective(0xffffffffu, {"mma_bf16", __FILE__, 0}, &input, d, &complete_product);
}

}  // namespace mdprop::emulation
