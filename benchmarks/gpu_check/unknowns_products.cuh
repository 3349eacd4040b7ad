// Issue rates of Hopper's asynchronous tensor-core products of one-bit and of 8-bit integers.
//
// Two warpgroups a multiprocessor repeat one product, with both operands in shared memory and nothing else to do, so
// that cycles per product are what the tensor cores allow. The operands are random bytes, for which they are clocked as
// for real data; the sum of all results of one stage is checked on the host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace unknowns {

constexpr int kRows = 64;      // of A: the only size there is
constexpr int kRowBytes = 32;  // of A and B: 256 one-bit or 32 8-bit values
constexpr int kWarpgroup = 128;
constexpr int kWarpgroups = 2;  // of a block: one issues while the other waits for its stage
constexpr int kStage = 16;      // products in flight; without stages the compiler would serialise them

struct ProductArgs {
  const unsigned char* a;  // [64, 32 bytes] in the order of core_matrix_offset
  const unsigned char* b;  // [columns, 32 bytes], likewise
  int repetitions;         // of kStage products
  long long* cycles;       // [blocks]
  long long* sum;          // [1]: all results of block 0, added to what is there
};

// Where byte `byte` of row `row` lies: matrices of 8 rows x 16 bytes are contiguous, two of them side by side.
__host__ __device__ inline int core_matrix_offset(int row, int byte) {
  return (row / 8) * 256 + (byte / 16) * 128 + (row % 8) * 16 + byte % 16;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Descriptor of an operand without swizzling: address, 128 bytes to the next 16 bytes of a row, 256 to the next 8 rows.
__device__ inline uint64_t descriptor(const void* operand) {
  const uint64_t address = static_cast<uint64_t>(__cvta_generic_to_shared(operand));
  return (address >> 4 & 0x3fff) | uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32;
}

// Operand lists of the instructions: "%0, %1, ..." and the registers bound to them.
#define UNKNOWNS_TEN(t) "%" t "0, %" t "1, %" t "2, %" t "3, %" t "4, %" t "5, %" t "6, %" t "7, %" t "8, %" t "9, "
#define UNKNOWNS_30 UNKNOWNS_TEN("") UNKNOWNS_TEN("1") UNKNOWNS_TEN("2")
#define UNKNOWNS_60 UNKNOWNS_30 UNKNOWNS_TEN("3") UNKNOWNS_TEN("4") UNKNOWNS_TEN("5")
#define UNKNOWNS_120                                                                                     \
  UNKNOWNS_60 UNKNOWNS_TEN("6") UNKNOWNS_TEN("7") UNKNOWNS_TEN("8") UNKNOWNS_TEN("9") UNKNOWNS_TEN("10") \
      UNKNOWNS_TEN("11")
#define UNKNOWNS_EIGHT(i)                                                                                     \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), \
      "+r"(d[i + 7])
#define UNKNOWNS_R32(i) UNKNOWNS_EIGHT(i), UNKNOWNS_EIGHT(i + 8), UNKNOWNS_EIGHT(i + 16), UNKNOWNS_EIGHT(i + 24)
#define UNKNOWNS_R64(i) UNKNOWNS_R32(i), UNKNOWNS_R32(i + 32)

// d += a * b for [64, K] x [K, columns]; `shape` and `kind` complete the instruction's name.
#define UNKNOWNS_PRODUCT(name, columns, shape, kind, list, a_operand, b_operand, registers)                   \
  template <>                                                                                                 \
  struct name<columns> {                                                                                      \
    __device__ static void add(int (&d)[columns / 2], uint64_t a, uint64_t b) {                               \
      asm volatile("wgmma.mma_async.sync.aligned." shape kind " {" list "}, " a_operand ", " b_operand ", 1;" \
                   : registers                                                                                \
                   : "l"(a), "l"(b));                                                                         \
    }                                                                                                         \
  };

template <int columns>
struct BitProduct;
template <int columns>
struct ByteProduct;

#define UNKNOWNS_BITS ".s32.b1.b1.and.popc"
#define UNKNOWNS_BYTES ".s32.s8.s8"
#define UNKNOWNS_LIST_64 UNKNOWNS_30 "%30, %31"
#define UNKNOWNS_LIST_128 UNKNOWNS_60 "%60, %61, %62, %63"
#define UNKNOWNS_LIST_256 UNKNOWNS_120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define UNKNOWNS_R128 UNKNOWNS_R64(0), UNKNOWNS_R64(64)

UNKNOWNS_PRODUCT(BitProduct, 64, "m64n64k256", UNKNOWNS_BITS, UNKNOWNS_LIST_64, "%32", "%33", UNKNOWNS_R32(0))
UNKNOWNS_PRODUCT(BitProduct, 128, "m64n128k256", UNKNOWNS_BITS, UNKNOWNS_LIST_128, "%64", "%65", UNKNOWNS_R64(0))
UNKNOWNS_PRODUCT(BitProduct, 256, "m64n256k256", UNKNOWNS_BITS, UNKNOWNS_LIST_256, "%128", "%129", UNKNOWNS_R128)
UNKNOWNS_PRODUCT(ByteProduct, 64, "m64n64k32", UNKNOWNS_BYTES, UNKNOWNS_LIST_64, "%32", "%33", UNKNOWNS_R32(0))
UNKNOWNS_PRODUCT(ByteProduct, 128, "m64n128k32", UNKNOWNS_BYTES, UNKNOWNS_LIST_128, "%64", "%65", UNKNOWNS_R64(0))
UNKNOWNS_PRODUCT(ByteProduct, 256, "m64n256k32", UNKNOWNS_BYTES, UNKNOWNS_LIST_256, "%128", "%129", UNKNOWNS_R128)

#endif

// One block a multiprocessor; each thread holds columns / 2 of the 64 x columns results of its warpgroup.
template <int columns, bool bits>
__global__ void __launch_bounds__(kWarpgroups* kWarpgroup, 1) product_kernel(const __grid_constant__ ProductArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ __align__(128) unsigned char a[kRows * kRowBytes];
  __shared__ __align__(128) unsigned char b[columns * kRowBytes];
  for (int i = threadIdx.x; i < kRows * kRowBytes; i += kWarpgroups * kWarpgroup) a[i] = args.a[i];
  for (int i = threadIdx.x; i < columns * kRowBytes; i += kWarpgroups * kWarpgroup) b[i] = args.b[i];
  // The tensor cores read shared memory by another path than the stores above.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const uint64_t a_descriptor = descriptor(a), b_descriptor = descriptor(b);
  int d[columns / 2] = {};
  const long long start = clock64();
#pragma unroll 1
  for (int repetition = 0; repetition < args.repetitions; ++repetition) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int product = 0; product < kStage; ++product) {
      if constexpr (bits) {
        BitProduct<columns>::add(d, a_descriptor, b_descriptor);
      } else {
        ByteProduct<columns>::add(d, a_descriptor, b_descriptor);
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  const long long cycles = clock64() - start;
  unsigned sum = 0;  // wide enough for one stage, whose sum is looked at
  for (int i = 0; i < columns / 2; ++i) sum += static_cast<unsigned>(d[i]);
  if (threadIdx.x == 0) args.cycles[blockIdx.x] = cycles;
  if (blockIdx.x == 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(args.sum), static_cast<unsigned long long>(static_cast<int>(sum)));
  }
#endif
}

}  // namespace unknowns
