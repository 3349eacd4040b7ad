# Compiles the CPU kernels once per instruction set: same sources, other flags, another namespace (common/macros.h).

include(CheckCXXCompilerFlag)

# Error texts name files by their path in the source tree, not on the machine of the build.
set(MDPROP_WARNINGS -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")
# No contraction into fused multiply-adds: every instruction set computes the same bits. Kernels do not read errno or
# floating-point exceptions.
set(MDPROP_KERNEL_FLAGS ${MDPROP_WARNINGS} -ffp-contract=off -fno-math-errno -fno-trapping-math)

set(MDPROP_ISAS baseline)
set(MDPROP_FLAGS_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(MDPROP_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mpopcnt)
  set(MDPROP_FLAGS_avx512 ${MDPROP_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vpopcntdq
                          -mavx512bf16 -mprefer-vector-width=512)
  check_cxx_compiler_flag("-mavx512bf16 -mavx512vpopcntdq" MDPROP_HAS_AVX512_FLAGS)
  if(MDPROP_HAS_AVX512_FLAGS)
    list(APPEND MDPROP_ISAS avx2 avx512)
    set(MDPROP_ISA_DEFINITION MDPROP_X86_ISAS)
  endif()
endif()

# Creates the object library `target` of all instruction sets of the given sources, with the choice between them.
function(mdprop_add_cpu_kernels target)
  add_library(${target} INTERFACE)
  foreach(isa IN LISTS MDPROP_ISAS)
    add_library(${target}_${isa} OBJECT ${ARGN})
    target_include_directories(${target}_${isa} PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
    target_compile_definitions(${target}_${isa} PRIVATE MDPROP_ISA=${isa} ${MDPROP_ISA_DEFINITION})
    target_compile_options(${target}_${isa} PRIVATE ${MDPROP_KERNEL_FLAGS} ${MDPROP_FLAGS_${isa}}
                           ${MDPROP_SANITIZER_FLAGS})
    target_sources(${target} INTERFACE $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
  add_library(${target}_choice OBJECT ${CMAKE_SOURCE_DIR}/csrc/common/cpu_isa.cpp)
  target_include_directories(${target}_choice PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
  target_compile_definitions(${target}_choice PRIVATE ${MDPROP_ISA_DEFINITION})
  target_sources(${target} INTERFACE $<TARGET_OBJECTS:${target}_choice>)
  target_include_directories(${target} INTERFACE ${CMAKE_SOURCE_DIR}/csrc)
  target_compile_definitions(${target} INTERFACE ${MDPROP_ISA_DEFINITION})
endfunction()
