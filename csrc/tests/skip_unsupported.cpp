// Ends a test program with ctest's code for a skipped test where MDPROP_CPU_ISA asks for more than this processor has.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "common/cpu_isa.h"

namespace {

const bool isa_is_usable = [] {
  try {
    mdprop::cpu_isa();
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    std::exit(77);
  }
  return true;
}();

}  // namespace
