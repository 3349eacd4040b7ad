// Small kernels, right ones and ones with a planted bug, that show what the emulation finds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mdprop::planted {

constexpr int kThreads = 96;

// out[i] of a block = in[kThreads - 1 - i] of the block, through shared memory.
void reverse(const float* in, float* out, int blocks);
void reverse_without_barrier(const float* in, float* out, int blocks);
void divergent_barrier();
void barrier_after_return();
void divergent_shuffle();
void shuffle_from_outside();
// *sum += in[i], in whatever order the threads come.
void order_dependent_sum(const float* in, float* sum, int blocks);
// *sum = the sum in the order of blocks and lanes; counter starts at 0 and ends there.
void ordered_sum(const float* in, float* partials, unsigned* counter, float* sum, int blocks);
void all_but_one(float* out);
void shared_overrun(float* out);
void global_overrun(float* out);
void global_overread(const float* in, float* out);
void misaligned(const float* in, float* out);
// Launches of an empty kernel with so many blocks, threads and bytes of dynamic shared memory; and of one that holds
// kHeldBytes itself.
constexpr int kHeldBytes = 20 << 10;
void launch_empty(unsigned blocks, unsigned threads, size_t shared);
void launch_holding(size_t shared);
void launch_together(unsigned blocks, size_t shared);
void spin(unsigned* flag);
void vote_for_ever(unsigned* flag);
void spin_alone(volatile unsigned* flag);
void refuse(int value);
// out = in, kThreads * 4 floats a block, by copies in two stages.
void copy_in_groups(const float* in, float* out, int blocks);
void copy_without_wait(const float* in, float* out, int blocks);
void copy_by_bulk(const float* in, float* out, int blocks);
// out[block] = sum over the cluster of 4 blocks of their numbers.
void cluster_sum(float* out, int blocks);
void cluster_without_barrier(float* out, int blocks);
// out[block] = sum of values[other] over all blocks, after values[block] = block.
void grid_sum(float* values, float* out, int blocks);
// d [16, 8] = a [16, 16] b [16, 8], a and b [8, 16] transposed of bf16 bits.
void product(const uint16_t* a, const uint16_t* b_transposed, float* d);

}  // namespace mdprop::planted
