// How the CUDA kernels share out their work, and the scratch memory that this takes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pgd_step/pgd_step.h"

MDPROP_ISA_BEGIN

// A sample is summed up by a team of one or more blocks. It has a fixed number of parts, which depends on its size
// alone; each is summed up by one block, and the parts are added in order: so the size of the team does not show in the
// bits.
constexpr int kTeamThreads = 256;
constexpr int kTeamBlocks = 2;  // that a multiprocessor holds: each has half of its registers and shared memory
constexpr int64_t kPartSize = 8192;
constexpr int64_t kMaxParts = 64;
constexpr int64_t kMaxTeams = 1024;  // with more samples than these, one block each fills any card

constexpr int kMaxFields = 5;    // of a sum
constexpr int kMaxRounds = 128;  // passes of the l1 search, at most
constexpr int64_t kRoundBytes = kMaxRounds * static_cast<int64_t>(sizeof(int));

// l1 starts from a guess where a sample is larger than shared memory may hold, so that passes are expensive. The size
// of the sample alone decides, since the way of a search shows in its last bits.
constexpr int64_t kGuessFrom = int64_t{96} << 10;
constexpr int kGuessBytes = 32 << 10;  // of shared memory for the guess, behind the chunks

// How the blocks of a launch share out samples.
struct SamplePlan {
  int64_t chunks, parts;  // of a sample
  int64_t chunks_a_part;  // a chunk is a run of every thread of a block
  int team_size;          // blocks a sample
  int cached_chunks;      // of a block's chunks, that its shared memory holds
  bool guesses;           // see kGuessFrom
  bool vector;            // runs are aligned
};

inline int64_t count_parts(int64_t sample_size) {
  return std::clamp<int64_t>((sample_size + kPartSize - 1) / kPartSize, 1, kMaxParts);
}

// Bytes: a counter a round, then the sums of all parts twice, since one set may still be read while the next is
// written.
inline int64_t pgd_step_workspace(int64_t samples, int64_t sample_size) {
  const int64_t parts = count_parts(sample_size);
  if (parts == 1 || samples > kMaxTeams) return 0;
  return kRoundBytes + 2 * samples * parts * kMaxFields * static_cast<int64_t>(sizeof(double));
}

constexpr int64_t kNoiseTile = 1024;  // values whose noise one warp sums up

inline int64_t count_noise_tiles(int64_t sample_size) { return (sample_size + kNoiseTile - 1) / kNoiseTile; }

// Bytes: the sum of every tile, then the scale of every sample. linf needs none.
inline int64_t random_start_workspace(PgdNorm norm, int64_t samples, int64_t sample_size) {
  if (norm == PgdNorm::kLinf) return 0;
  return samples * (count_noise_tiles(sample_size) + 1) * static_cast<int64_t>(sizeof(double));
}

MDPROP_ISA_END
