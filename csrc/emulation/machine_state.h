// The inside of machine.h: what the machine keeps of threads, blocks and clusters while a grid runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "emulation/fiber.h"
#include "emulation/machine.h"

namespace mdprop::emulation {

enum class State { kRunnable, kWaiting, kReturned };

struct Runner : Thread {
  Fiber fiber;
  State state = State::kRunnable;
  Site site{};  // where it waits
  const void* in = nullptr;
  void* out = nullptr;
};

// A warp collective that some lanes have reached.
struct Meeting {
  uint32_t mask, arrived;
  Site site;
};

struct Unit;

struct ResidentBlock : Block {
  Unit* unit;
  std::vector<Runner*> runners;
  std::vector<std::vector<Meeting>> meetings;  // by warp
  Barrier barrier;
  size_t returned = 0;
};

// The blocks of one cluster.
struct Unit {
  std::vector<std::unique_ptr<ResidentBlock>> blocks;
  std::vector<Block*> by_rank;
  Barrier barrier;
};

std::string text(const Index& index);
std::string text(const Site& site);
std::string text(const Thread& thread);

class Machine {
 public:
  Machine(const Grid& grid, const std::function<void()>& kernel);
  void run();

  const Grid& grid() const { return grid_; }
  Runner& current() { return *current_; }
  void fail(const std::string& message);
  void yield();
  void block_barrier(Site site);
  void cluster_barrier(Site site);
  void grid_barrier(Site site);
  void warp_collective(uint32_t mask, Site site, const void* in, void* out, Complete complete);

 private:
  size_t threads_per_block() const { return size_t{grid_.block.x} * grid_.block.y * grid_.block.z; }
  void load_next_unit();
  void load_block(Unit& unit, uint64_t linear_index, unsigned rank);
  void start(ResidentBlock& block, unsigned linear);
  void retire(Runner& runner);
  void check_shared(const Block& block);
  template <typename ForEachBlock>
  void meet(Barrier& barrier, size_t blocks, Site site, const ForEachBlock& for_each_block);
  void wait(Site site);
  void release(Runner& runner);
  std::string deadlock() const;
  static void body(void* machine);

  const Grid& grid_;
  const std::function<void()>& kernel_;
  std::vector<uint64_t> order_;  // units still to come, the next one last
  std::vector<std::unique_ptr<Unit>> resident_;
  std::vector<Runner*> runnable_;
  Barrier grid_barrier_;
  Runner* current_ = nullptr;
  int64_t steps_without_event_ = 0;
  std::string error_;
};

}  // namespace mdprop::emulation
