#include "common/cpu_isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mdprop {
namespace {

bool supported(CpuIsa isa) {
#ifdef MDPROP_X86_ISAS
  __builtin_cpu_init();
  switch (isa) {
    case CpuIsa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bf16") &&
             supported(CpuIsa::kAvx2);
    case CpuIsa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
             __builtin_cpu_supports("popcnt");
    default:
      return true;
  }
#else
  return isa == CpuIsa::kBaseline;
#endif
}

CpuIsa choose() {
  const char* wanted = std::getenv("MDPROP_CPU_ISA");
  for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kBaseline}) {
    if (wanted == nullptr || *wanted == '\0') {
      if (supported(isa)) return isa;
    } else if (std::strcmp(wanted, cpu_isa_name(isa)) == 0) {
      if (supported(isa)) return isa;
      throw std::runtime_error(
          std::string("MDPROP_CPU_ISA=") + wanted +
          " is not supported here: this processor or this build lacks it; compiled in: " + compiled_cpu_isas());
    }
  }
  throw std::runtime_error(std::string("MDPROP_CPU_ISA must be one of baseline, avx2, avx512, got ") + wanted);
}

}  // namespace

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

const char* compiled_cpu_isas() {
#ifdef MDPROP_X86_ISAS
  return "baseline avx2 avx512";
#else
  return "baseline";
#endif
}

CpuIsa cpu_isa() {
  static const CpuIsa chosen = choose();
  return chosen;
}

}  // namespace mdprop
