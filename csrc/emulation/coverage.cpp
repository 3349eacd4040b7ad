#include "emulation/coverage.h"

#include <cxxabi.h>

#include <cstdlib>
#include <fstream>
#include <set>

namespace mdprop::emulation {

std::string kernel_name(const std::type_info& tag) {
  char* const demangled = abi::__cxa_demangle(tag.name(), nullptr, nullptr, nullptr);
  const std::string text = demangled;
  std::free(demangled);
  const size_t begin = text.find('&') + 1;
  const std::string name = text.substr(begin, text.size() - 1 - begin);
  return name.front() == '(' ? name.substr(1, name.size() - 2) : name;
}

void record_launch(const std::string& kernel) {
  static std::set<std::string> seen;
  const char* path = std::getenv("MDPROP_EMULATION_COVERAGE");
  if (path == nullptr || !seen.insert(kernel).second) return;
  std::ofstream(path, std::ios::app) << kernel + "\n";
}

}  // namespace mdprop::emulation
