# The C++ tests: one program per csrc/tests/test_*.cpp, without torch or Python, run by ctest once per instruction set
# and once with one thread.

if(MDPROP_SANITIZE)
  set(sanitizer_flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1)
endif()

enable_testing()
find_package(Threads REQUIRED)
file(GLOB test_sources CONFIGURE_DEPENDS csrc/tests/test_*.cpp)
foreach(isa IN LISTS MDPROP_ISAS)
  target_compile_options(mdprop_cpu_${isa} PRIVATE ${sanitizer_flags})
endforeach()

foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} csrc/tests/parallel_threads.cpp csrc/tests/skip_unsupported.cpp)
  target_link_libraries(${name} PRIVATE mdprop_cpu Threads::Threads)
  target_compile_options(${name} PRIVATE ${MDPROP_WARNINGS} ${sanitizer_flags})
  target_link_options(${name} PRIVATE ${sanitizer_flags})
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
