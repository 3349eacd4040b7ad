// Where threads wait for each other: barriers, warp collectives, and the report when they do so in vain.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "emulation/machine_state.h"

namespace mdprop::emulation {
namespace {

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0 && std::strcmp(a.what, b.what) == 0;
}

}  // namespace

std::string text(const Index& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string text(const Site& site) {
  return std::string(site.what) + " (" + site.file + ":" + std::to_string(site.line) + ")";
}

std::string text(const Thread& thread) {
  return "block " + text(thread.block->index) + ", thread " + std::to_string(thread.linear);
}

void Machine::fail(const std::string& message) {
  error_ = grid_.name + ": " + text(*current_) + ": " + message;
  current_->fiber.suspend();
  std::abort();  // an abandoned fiber is never resumed
}

void Machine::yield() { current_->fiber.suspend(); }

void Machine::wait(Site site) {
  current_->state = State::kWaiting;
  current_->site = site;
  current_->fiber.suspend();
}

void Machine::release(Runner& runner) {
  runner.state = State::kRunnable;
  if (&runner != current_) runnable_.push_back(&runner);
}

template <typename ForEachBlock>
void Machine::meet(Barrier& barrier, size_t blocks, Site site, const ForEachBlock& for_each_block) {
  if (barrier.arrived == 0) barrier.site = site;
  if (!same(barrier.site, site)) {
    fail("divergent barrier: this thread waits at " + text(site) + ", others at " + text(barrier.site));
  }
  if (++barrier.arrived < blocks * threads_per_block()) return wait(site);
  barrier.arrived = 0;
  steps_without_event_ = 0;
  for_each_block([this](ResidentBlock& block) {
    for (Runner* runner : block.runners) release(*runner);
  });
  yield();
}

void Machine::block_barrier(Site site) {
  auto& block = static_cast<ResidentBlock&>(*current_->block);
  meet(block.barrier, 1, site, [&](const auto& action) { action(block); });
}

void Machine::cluster_barrier(Site site) {
  Unit& unit = *static_cast<ResidentBlock&>(*current_->block).unit;
  meet(unit.barrier, unit.blocks.size(), site, [&](const auto& action) {
    for (const auto& block : unit.blocks) action(*block);
  });
}

void Machine::grid_barrier(Site site) {
  if (!grid_.cooperative) fail("grid_barrier needs launch_cooperative");
  meet(grid_barrier_, resident_.size() * grid_.cluster, site, [this](const auto& action) {
    for (const auto& unit : resident_) {
      for (const auto& block : unit->blocks) action(*block);
    }
  });
}

void Machine::warp_collective(uint32_t mask, Site site, const void* in, void* out, Complete complete) {
  auto& block = static_cast<ResidentBlock&>(*current_->block);
  const unsigned warp = current_->linear / kWarpSize;
  const uint32_t bit = uint32_t{1} << current_->linear % kWarpSize;
  if ((mask & bit) == 0) fail(text(site) + ": the mask leaves out the calling lane");
  auto& meetings = block.meetings[warp];
  auto meeting = std::find_if(meetings.begin(), meetings.end(), [=](const Meeting& m) { return (m.mask & mask) != 0; });
  if (meeting == meetings.end()) meeting = meetings.insert(meeting, {mask, 0, site});
  if (meeting->mask != mask || !same(meeting->site, site)) {
    fail("divergent warp: this lane is at " + text(site) + ", others at " + text(meeting->site));
  }
  current_->in = in;
  current_->out = out;
  meeting->arrived |= bit;
  if (meeting->arrived != mask) return wait(site);
  meetings.erase(meeting);
  const void* inputs[kWarpSize] = {};
  void* outputs[kWarpSize] = {};
  const auto each_lane = [&](auto&& action) {
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      if ((mask >> lane & 1) != 0) action(lane, *block.runners[warp * kWarpSize + lane]);
    }
  };
  each_lane([&](unsigned lane, Runner& runner) {
    inputs[lane] = runner.in;
    outputs[lane] = runner.out;
  });
  complete(inputs, outputs, mask);
  each_lane([&](unsigned, Runner& runner) { release(runner); });
}

std::string Machine::deadlock() const {
  std::string report = grid_.name + ": deadlock, no thread can go on:";
  int lines = 0;
  for (const auto& unit : resident_) {
    for (const auto& block : unit->blocks) {
      for (const Runner* runner : block->runners) {
        const bool returned = runner->state == State::kReturned;
        if (++lines > 8 && returned) continue;
        if (lines > 40) return report + " ...";
        report += " " + text(*runner) + (returned ? " has returned;" : " waits at " + text(runner->site) + ";");
      }
    }
  }
  return report;
}

}  // namespace mdprop::emulation
