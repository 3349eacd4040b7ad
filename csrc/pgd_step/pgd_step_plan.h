// How the CUDA kernels share out their work, and the scratch memory that this takes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "pgd_step/pgd_step.h"

MDPROP_ISA_BEGIN

// A sample is summed up by a team of one or more blocks. It has a fixed number of parts, which depends on its size
// alone; each is summed up by one block, and the parts are added in order: so the size of the team does not show in the
// bits. Teams of several blocks go through the samples, so that those under way at once stay in the caches.
constexpr int kTeamThreads = 256;
constexpr int kTeamBlocks = 2;  // that a multiprocessor holds: each has half of its registers and shared memory
constexpr int64_t kPartSize = 8192;
constexpr int64_t kMaxParts = 64;
constexpr int64_t kMaxTeams = 256;  // of several blocks: more than a card holds

constexpr int kMaxFields = 5;           // of a sum
constexpr int kRoundCounters = 3;       // of searching teams, used in turn
constexpr int64_t kCounterBytes = 256;  // keeps the sums behind them aligned

// l1 starts from a guess where a sample is larger than shared memory may hold, so that passes are expensive. The size
// of the sample alone decides, since the way of a search shows in its last bits.
constexpr int64_t kGuessFrom = int64_t{96} << 10;
constexpr int kGuessBytes = 32 << 10;  // of shared memory for the guess, behind the chunks

// How the blocks of a launch share out samples.
struct SamplePlan {
  int64_t chunks, parts;  // of a sample
  int64_t chunks_a_part;  // a chunk is a run of every thread of a block
  int team_size;          // blocks
  int cached_chunks;      // of a block's chunks, that its shared memory holds
  bool guesses;           // see kGuessFrom
  bool vector;            // runs are aligned
};

inline int64_t count_parts(int64_t sample_size) {
  return std::clamp<int64_t>((sample_size + kPartSize - 1) / kPartSize, 1, kMaxParts);
}

// How many teams of the given size work at once.
inline int64_t count_teams(int64_t samples, int64_t team_size, int64_t resident_blocks) {
  return std::min({samples, resident_blocks / team_size, team_size == 1 ? resident_blocks : kMaxTeams});
}

// The team size that should take the least time, where L2 and shared memory hold `cached_samples` samples. A round
// takes as long as the parts of a block and its barriers. The weights are an estimate for the three passes and two
// barriers of l2: a part that comes from memory in every pass takes twice as long, the barriers take a third of a
// cached part.
inline int64_t choose_team_size(int64_t samples, int64_t parts, int64_t resident_blocks, int64_t cached_samples) {
  int64_t best = 1, least = std::numeric_limits<int64_t>::max();
  for (int64_t size = 1; size <= std::min(parts, resident_blocks); ++size) {
    const int64_t teams = count_teams(samples, size, resident_blocks);
    const int64_t rounds = (samples + teams - 1) / teams, own_parts = (parts + size - 1) / size;
    const int64_t time = rounds * (own_parts * (teams <= cached_samples ? 3 : 6) + (size > 1 ? 1 : 0));
    if (time < least) {
      least = time;
      best = size;
    }
  }
  return best;
}

// Bytes: the counters, then the sums of all parts twice, since one set may still be read while the next is written.
inline int64_t pgd_step_workspace(int64_t samples, int64_t sample_size) {
  const int64_t parts = count_parts(sample_size);
  if (parts == 1) return 0;
  return kCounterBytes + 2 * std::min(samples, kMaxTeams) * parts * kMaxFields * static_cast<int64_t>(sizeof(double));
}

constexpr int64_t kNoiseTile = 1024;  // values whose noise one warp sums up

inline int64_t count_noise_tiles(int64_t sample_size) { return (sample_size + kNoiseTile - 1) / kNoiseTile; }

// Bytes: the sum of every tile, then the scale of every sample. linf needs none.
inline int64_t random_start_workspace(PgdNorm norm, int64_t samples, int64_t sample_size) {
  if (norm == PgdNorm::kLinf) return 0;
  return samples * (count_noise_tiles(sample_size) + 1) * static_cast<int64_t>(sizeof(double));
}

MDPROP_ISA_END
