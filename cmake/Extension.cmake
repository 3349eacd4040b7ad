# The Python module mdprop_ext/_C: CPU kernels, CUDA kernels where nvcc is found, torch registrations, pybind11 module.

find_package(Python3 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/cmake/python_paths.py
                OUTPUT_VARIABLE paths COMMAND_ERROR_IS_FATAL ANY)
list(GET paths 0 TORCH_ROOT)
list(GET paths 1 TORCH_VERSION)
list(GET paths 2 PYBIND11_INCLUDE)

if(MDPROP_EMULATE)
  include(Emulation)
  set(kernels mdprop_emulated mdprop_cpu_choice)
else()
  include(Cuda)
  set(kernels mdprop_cpu)
endif()

file(GLOB torch_sources CONFIGURE_DEPENDS csrc/*/*_torch.cpp)
if(NOT MDPROP_WITH_CUDA)
  list(FILTER torch_sources EXCLUDE REGEX "/cuda_probe/")
endif()

Python3_add_library(_C MODULE WITH_SOABI csrc/module.cpp ${torch_sources})
target_include_directories(_C PRIVATE csrc)
target_include_directories(_C SYSTEM PRIVATE ${TORCH_ROOT}/include ${PYBIND11_INCLUDE})
target_compile_options(_C PRIVATE ${MDPROP_WARNINGS} ${MDPROP_SANITIZER_FLAGS})
# Only the stable ABI as of torch 2.10: the module then loads under every later torch.
target_compile_definitions(_C PRIVATE TORCH_TARGET_VERSION=0x020a000000000000ULL TORCH_STABLE_ONLY
                                      MDPROP_VERSION="${MDPROP_VERSION}" MDPROP_TORCH_VERSION="${TORCH_VERSION}"
                                      MDPROP_CUDA_ARCHITECTURES="${MDPROP_CUDA_ARCHITECTURES}"
                                      MDPROP_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}")
target_link_libraries(_C PRIVATE ${kernels} ${MDPROP_SANITIZER_FLAGS} ${TORCH_ROOT}/lib/libtorch_cpu.so)
# A CUDA build of torch defines the current-stream symbol in a library that only libtorch.so names, so that dependency
# is kept although no symbol of the CPU build asks for it.
target_link_options(_C PRIVATE "LINKER:--no-as-needed" ${TORCH_ROOT}/lib/libtorch.so "LINKER:--as-needed")
set_target_properties(_C PROPERTIES SKIP_BUILD_RPATH ON)

if(MDPROP_WITH_CUDA)
  file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/*/*_cuda.cu)
  target_sources(_C PRIVATE ${cuda_sources})
  target_compile_definitions(_C PRIVATE MDPROP_WITH_CUDA USE_CUDA)
  set_target_properties(_C PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static)
endif()
