#include "emulation/machine.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>

#include "emulation/coverage.h"
#include "emulation/machine_state.h"
#include "emulation/watchdog.h"

namespace mdprop::emulation {
namespace {

constexpr int kResidentBlocks = 3;               // blocks that run interleaved where the kernel asks for none
constexpr int64_t kStepsWithoutEvent = 8 << 20;  // resumed threads before the grid counts as going round in circles

std::string too_much_shared(size_t bytes) {
  return std::to_string(bytes) + " bytes of shared memory, but a block has " + std::to_string(kSharedBytes);
}

int environment_number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

std::mutex launch_mutex;  // one grid at a time
std::mt19937_64 generator(environment_number("MDPROP_EMULATION_SEED", 0));
int multiprocessor_count = environment_number("MDPROP_EMULATION_MULTIPROCESSORS", 3);

Machine* machine = nullptr;

// Blocks that a multiprocessor of the smallest card holds at once, each with what the system reserves for it.
uint64_t resident_blocks(const Grid& grid) {
  const uint64_t threads = uint64_t{grid.block.x} * grid.block.y * grid.block.z;
  return std::min<uint64_t>({16, 1536 / threads, kMultiprocessorSharedBytes / (grid.dynamic_shared + 1024)});
}

// Refuses what a card would: the limits are those of the smallest from sm_80 on.
void check_launch(const Grid& grid) {
  const auto refuse = [&](const std::string& why) { throw std::runtime_error(grid.name + ": " + why); };
  const auto within = [](const Index& index, unsigned x, unsigned y, unsigned z) {
    return index.x >= 1 && index.y >= 1 && index.z >= 1 && index.x <= x && index.y <= y && index.z <= z;
  };
  if (!within(grid.grid, INT32_MAX, 65535, 65535)) refuse("no card takes a grid of " + text(grid.grid) + " blocks");
  if (!within(grid.block, 1024, 1024, 64) || uint64_t{grid.block.x} * grid.block.y * grid.block.z > 1024) {
    refuse("no card takes a block of " + text(grid.block) + " threads");
  }
  if (grid.dynamic_shared > kSharedBytes) refuse(too_much_shared(grid.dynamic_shared));
  if (grid.cluster < 1 || grid.cluster > 8) refuse("a cluster has 1 to 8 blocks, got " + std::to_string(grid.cluster));
  if (grid.grid.x % grid.cluster != 0) refuse("the grid is no multiple of the cluster");
  const uint64_t blocks = uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  const uint64_t together = multiprocessor_count * resident_blocks(grid);
  if (grid.cooperative && blocks > together) {
    refuse(std::to_string(blocks) + " blocks of a cooperative grid, but " + std::to_string(together) + " run at once");
  }
}

// Threads with their stacks, kept from grid to grid.
class RunnerPool {
 public:
  Runner* take() {
    if (idle_.empty()) {
      all_.push_back(std::make_unique<Runner>());
      idle_.push_back(all_.back().get());
    }
    Runner* runner = idle_.back();
    idle_.pop_back();
    return runner;
  }
  void give_back(const std::vector<Runner*>& runners) { idle_.insert(idle_.end(), runners.begin(), runners.end()); }
  // Takes back what a grid that failed has left.
  void give_back_all() {
    idle_.clear();
    for (const auto& runner : all_) idle_.push_back(runner.get());
  }

 private:
  std::vector<std::unique_ptr<Runner>> all_;
  std::vector<Runner*> idle_;
};

RunnerPool& runner_pool() {
  static RunnerPool pool;
  return pool;
}

}  // namespace

Machine::Machine(const Grid& grid, const std::function<void()>& kernel) : grid_(grid), kernel_(kernel) {
  check_launch(grid);
  const uint64_t blocks = uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  order_.resize(blocks / grid.cluster);
  std::iota(order_.begin(), order_.end(), uint64_t{0});
  std::shuffle(order_.begin(), order_.end(), generator);
}

void Machine::run() {
  const std::function<std::string()> where = [this] { return grid_.name + ": " + text(*current_); };
  Watch watch(where);
  const size_t wanted = grid_.cooperative ? order_.size() : 1 + generator() % kResidentBlocks;
  while (!order_.empty() || !resident_.empty()) {
    while (resident_.size() < wanted && !order_.empty()) load_next_unit();
    if (runnable_.empty()) throw std::runtime_error(deadlock());
    std::swap(runnable_[generator() % runnable_.size()], runnable_.back());
    current_ = runnable_.back();
    runnable_.pop_back();
    watch.beat();
    current_->fiber.resume();
    if (!error_.empty()) throw std::runtime_error(error_);
    if (current_->state == State::kRunnable) runnable_.push_back(current_);
    if (current_->state == State::kReturned) retire(*current_);
    if (++steps_without_event_ > kStepsWithoutEvent) {
      throw std::runtime_error(grid_.name + ": no barrier was passed and no thread ended in " +
                               std::to_string(kStepsWithoutEvent) + " steps: " + text(*current_) + " goes round");
    }
  }
}

void Machine::load_next_unit() {
  const uint64_t unit_index = order_.back();
  order_.pop_back();
  resident_.push_back(std::make_unique<Unit>());
  Unit& unit = *resident_.back();
  unit.by_rank.resize(grid_.cluster);
  for (unsigned rank = 0; rank < grid_.cluster; ++rank) load_block(unit, unit_index * grid_.cluster + rank, rank);
}

void Machine::load_block(Unit& unit, uint64_t linear_index, unsigned rank) {
  unit.blocks.push_back(std::make_unique<ResidentBlock>());
  ResidentBlock& block = *unit.blocks.back();
  block.index.x = static_cast<unsigned>(linear_index % grid_.grid.x);
  block.index.y = static_cast<unsigned>(linear_index / grid_.grid.x % grid_.grid.y);
  block.index.z = static_cast<unsigned>(linear_index / grid_.grid.x / grid_.grid.y);
  block.unit = &unit;
  block.cluster_rank = rank;
  block.cluster = unit.by_rank.data();
  unit.by_rank[rank] = &block;
  block.meetings.resize((threads_per_block() + kWarpSize - 1) / kWarpSize);
  if (grid_.dynamic_shared > 0) block.shared.push_back({nullptr, GuardedMemory(grid_.dynamic_shared)});
  for (unsigned linear = 0; linear < threads_per_block(); ++linear) start(block, linear);
}

void Machine::start(ResidentBlock& block, unsigned linear) {
  Runner& runner = *runner_pool().take();
  runner.linear = linear;
  runner.index.x = linear % grid_.block.x;
  runner.index.y = linear / grid_.block.x % grid_.block.y;
  runner.index.z = linear / grid_.block.x / grid_.block.y;
  runner.block = &block;
  runner.copies.assign(1, {});
  runner.state = State::kRunnable;
  runner.fiber.start(&Machine::body, this);
  block.runners.push_back(&runner);
  runnable_.push_back(&runner);
}

void Machine::body(void* self) {
  auto* const machine = static_cast<Machine*>(self);
  Runner& runner = *machine->current_;
  try {
    machine->kernel_();
  } catch (const std::exception& exception) {
    machine->error_ = machine->grid_.name + ": " + text(runner) + ": " + exception.what();
  }
  runner.state = State::kReturned;
}

void Machine::retire(Runner& runner) {
  steps_without_event_ = 0;
  auto& block = static_cast<ResidentBlock&>(*runner.block);
  for (const auto& group : runner.copies) {
    if (!group.empty())
      throw std::runtime_error(grid_.name + ": " + text(runner) + " ended without waiting for a copy");
  }
  if (++block.returned < block.runners.size()) return;
  if (!block.bulk_copies.empty()) {
    throw std::runtime_error(grid_.name + ": block " + text(block.index) + " ended without waiting for a bulk copy");
  }
  check_shared(block);
  Unit& unit = *block.unit;
  for (const auto& other : unit.blocks) {
    if (other->returned < other->runners.size()) return;
  }
  for (const auto& other : unit.blocks) runner_pool().give_back(other->runners);
  const auto place = std::find_if(resident_.begin(), resident_.end(), [&](const auto& u) { return u.get() == &unit; });
  std::swap(*place, resident_.back());
  resident_.pop_back();
}

void Machine::check_shared(const Block& block) {
  for (const SharedPiece& piece : block.shared) {
    if (!piece.memory.intact()) {
      throw std::runtime_error(grid_.name + ": block " + text(block.index) + " wrote outside its shared memory of " +
                               std::to_string(piece.memory.size()) + " bytes (guard zone changed)");
    }
  }
}

void run_grid(const Grid& grid, const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  record_launch(grid.name);
  Machine local(grid, kernel);
  machine = &local;
  struct Reset {
    ~Reset() {
      machine = nullptr;
      runner_pool().give_back_all();
    }
  } reset;
  local.run();
}

void set_seed(uint64_t seed) { generator.seed(seed); }
int multiprocessors() { return multiprocessor_count; }
void set_multiprocessors(int count) { multiprocessor_count = count; }
uint64_t random_bits() { return generator(); }

Thread& current_thread() { return machine->current(); }
const Grid& current_grid() { return machine->grid(); }
void fail(const std::string& message) {
  machine->fail(message);
  std::abort();
}
void block_barrier(Site site) { machine->block_barrier(site); }
void cluster_barrier(Site site) { machine->cluster_barrier(site); }
void grid_barrier(Site site) { machine->grid_barrier(site); }
void yield() { machine->yield(); }
void maybe_yield() {
  if (generator() % 4 == 0) machine->yield();
}
void warp_collective(uint32_t mask, Site site, const void* in, void* out, Complete complete) {
  machine->warp_collective(mask, site, in, out, complete);
}

unsigned char* shared_memory(const void* key, size_t bytes) {
  auto& pieces = current_thread().block->shared;
  for (SharedPiece& piece : pieces) {
    if (piece.key == key) return piece.memory.data();
  }
  if (key == nullptr) fail("dynamic_shared: the launch gave no dynamic shared memory");
  size_t fixed = bytes;  // what the compiler sets aside
  for (const SharedPiece& piece : pieces) fixed += piece.key == nullptr ? 0 : piece.memory.size();
  if (fixed > kStaticSharedBytes) fail(std::to_string(fixed) + " bytes of shared memory that the launch does not give");
  if (fixed + current_grid().dynamic_shared > kSharedBytes)
    fail(too_much_shared(fixed + current_grid().dynamic_shared));
  pieces.push_back({key, GuardedMemory(bytes)});
  return pieces.back().memory.data();
}

void* distributed_shared(const void* own, unsigned rank) {
  const Block& block = *current_thread().block;
  if (rank >= current_grid().cluster) fail("distributed_shared: no such rank in the cluster");
  for (const SharedPiece& piece : block.shared) {
    const auto* address = static_cast<const unsigned char*>(own);
    if (address < piece.memory.data() || address >= piece.memory.data() + piece.memory.size()) continue;
    for (const SharedPiece& other : block.cluster[rank]->shared) {
      if (other.key == piece.key) return other.memory.data() + (address - piece.memory.data());
    }
  }
  fail("distributed_shared: the address is not in shared memory, or block " + std::to_string(rank) +
       " has not reached its own: a cluster_barrier is missing");
}

}  // namespace mdprop::emulation
