# The C++ tests: one program per csrc/tests/test_*.cpp, without torch or Python. Those of CPU kernels are run by ctest
# once per instruction set and once with one thread; those of emulated CUDA kernels (test_*_cuda.cpp) and of the
# emulation once per seed, under the label "emulated".

enable_testing()
find_package(Threads REQUIRED)
file(GLOB test_sources CONFIGURE_DEPENDS csrc/tests/test_*.cpp)
set(emulated_test_sources ${test_sources})
list(FILTER emulated_test_sources INCLUDE REGEX "_cuda\\.cpp$|test_emulation\\.cpp$")
list(REMOVE_ITEM test_sources ${emulated_test_sources})

foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} csrc/tests/parallel_threads.cpp csrc/tests/skip_unsupported.cpp)
  target_link_libraries(${name} PRIVATE mdprop_cpu Threads::Threads)
  target_compile_options(${name} PRIVATE ${MDPROP_WARNINGS} ${MDPROP_SANITIZER_FLAGS})
  target_link_options(${name} PRIVATE ${MDPROP_SANITIZER_FLAGS})
  foreach(isa IN LISTS MDPROP_ISAS)
    add_test(NAME ${name}.${isa} COMMAND ${name})
    set_tests_properties(${name}.${isa} PROPERTIES ENVIRONMENT "MDPROP_CPU_ISA=${isa}" SKIP_RETURN_CODE 77)
  endforeach()
  add_test(NAME ${name}.one_thread COMMAND ${name})
  set_tests_properties(${name}.one_thread PROPERTIES ENVIRONMENT "MDPROP_TEST_THREADS=1")
endforeach()

# No object of one instruction set may define a weak symbol that another could define too (common/macros.h says why).
foreach(isa IN LISTS MDPROP_ISAS)
  add_test(NAME weak_symbols.${isa}
           COMMAND ${CMAKE_COMMAND} -DISA=${isa} -DNM=${CMAKE_NM} "-DOBJECTS=$<TARGET_OBJECTS:mdprop_cpu_${isa}>"
                   -P ${CMAKE_SOURCE_DIR}/cmake/CheckWeakSymbols.cmake)
endforeach()

# The emulation switches stacks by itself, which ThreadSanitizer cannot follow, and its threads take turns anyway.
if(MDPROP_SANITIZE STREQUAL "thread")
  return()
endif()
include(Emulation)

# A thread of a kernel that ends with an error is abandoned, with what it owns.
set(emulation_options "ASAN_OPTIONS=detect_leaks=0")
foreach(source IN LISTS emulated_test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} csrc/tests/parallel_threads.cpp csrc/tests/skip_unsupported.cpp)
  target_link_libraries(${name} PRIVATE mdprop_emulated mdprop_cpu Threads::Threads)
  target_compile_options(${name} PRIVATE ${MDPROP_WARNINGS} ${MDPROP_SANITIZER_FLAGS})
  target_link_options(${name} PRIVATE ${MDPROP_SANITIZER_FLAGS})
  foreach(seed IN ITEMS 1 2)
    add_test(NAME ${name}.seed${seed} COMMAND ${name})
    set_tests_properties(${name}.seed${seed} PROPERTIES LABELS emulated TIMEOUT 300 ENVIRONMENT
                         "MDPROP_EMULATION_SEED=${seed};MDPROP_EMULATION_MULTIPROCESSORS=${seed};${emulation_options}")
  endforeach()
endforeach()
# Bugs that only a sanitizer or the machine can see end the program: each is a run of its own.
foreach(bug IN ITEMS shared_overrun global_overrun global_overread spin_alone)
  add_test(NAME emulation_finds.${bug} COMMAND test_emulation ${bug})
  set_tests_properties(emulation_finds.${bug} PROPERTIES LABELS emulated TIMEOUT 60 ENVIRONMENT
                       "MDPROP_EMULATION_SECONDS=1;${emulation_options}" PASS_REGULAR_EXPRESSION
                       "guard zone changed|use-after-poison|spin_alone_kernel.*without meeting")
endforeach()
