#include "emulation/coverage.h"

#include <cstdlib>
#include <fstream>
#include <set>

namespace mdprop::emulation {

void record_launch(const std::string& kernel) {
  static std::set<std::string> seen;
  const char* path = std::getenv("MDPROP_EMULATION_COVERAGE");
  if (path == nullptr || !seen.insert(kernel).second) return;
  std::ofstream(path, std::ios::app) << kernel + "\n";
}

}  // namespace mdprop::emulation
