# The CUDA kernels as the host compiler reads them, with the machine that runs them (csrc/emulation). For tests only.

file(GLOB emulated_sources CONFIGURE_DEPENDS csrc/*/*_cuda.cu csrc/tests/*_kernels.cu)
file(GLOB machine_sources CONFIGURE_DEPENDS csrc/emulation/*.cpp)
set_source_files_properties(${emulated_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")

add_library(mdprop_emulated OBJECT ${emulated_sources} ${machine_sources})
# Its own cuda_runtime.h comes before any toolkit's.
target_include_directories(mdprop_emulated PUBLIC csrc/emulation/include csrc)
target_compile_definitions(mdprop_emulated PUBLIC MDPROP_EMULATE PRIVATE MDPROP_ISA=emulated ${MDPROP_ISA_DEFINITION})
# Optimised but little: kernels run once a test, and sanitizers want to see every access.
target_compile_options(mdprop_emulated PRIVATE ${MDPROP_KERNEL_FLAGS} -Wno-unused-function -O1 -g1 ${MDPROP_SANITIZER_FLAGS})
