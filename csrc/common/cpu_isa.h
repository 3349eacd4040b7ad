// Run-time choice between the compiled instruction sets.
#pragma once

namespace mdprop {

enum class CpuIsa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// The instruction set that every CPU kernel uses: the best one that was compiled and that this processor has, or the
// one named by the environment variable MDPROP_CPU_ISA. Chosen at the first call; throws std::runtime_error if the
// variable names a set that is unknown, not compiled in or not supported here.
CpuIsa cpu_isa();

const char* cpu_isa_name(CpuIsa isa);

// The names of the sets compiled in, separated by spaces.
const char* compiled_cpu_isas();

}  // namespace mdprop

// Declares `name<T>(const Args<T>&)` in the namespace of each instruction set, and `name_cpu`, which calls the chosen
// one.
#ifdef MDPROP_X86_ISAS
#define MDPROP_DECLARE_CPU(name, Args)   \
  namespace baseline {                   \
  template <typename T>                  \
  void name(const Args<T>&);             \
  }                                      \
  namespace avx2 {                       \
  template <typename T>                  \
  void name(const Args<T>&);             \
  }                                      \
  namespace avx512 {                     \
  template <typename T>                  \
  void name(const Args<T>&);             \
  }                                      \
  template <typename T>                  \
  void name##_cpu(const Args<T>& args) { \
    switch (cpu_isa()) {                 \
      case CpuIsa::kAvx512:              \
        return avx512::name<T>(args);    \
      case CpuIsa::kAvx2:                \
        return avx2::name<T>(args);      \
      default:                           \
        return baseline::name<T>(args);  \
    }                                    \
  }
#else
#define MDPROP_DECLARE_CPU(name, Args)   \
  namespace baseline {                   \
  template <typename T>                  \
  void name(const Args<T>&);             \
  }                                      \
  template <typename T>                  \
  void name##_cpu(const Args<T>& args) { \
    return baseline::name<T>(args);      \
  }
#endif

// Declares `name_cpu` and `name_cuda`, which runs on a card: args with pointers to its memory, in order on the stream.
#define MDPROP_DECLARE_KERNELS(name, Args) \
  MDPROP_DECLARE_CPU(name, Args)           \
  template <typename T>                    \
  void name##_cuda(const Args<T>& args, void* stream);
