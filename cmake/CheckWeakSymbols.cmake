# Fails if an object of one instruction set defines a weak symbol outside that set's namespace: the linker keeps one copy
# of such a symbol, and it might be the one compiled for a larger instruction set than the processor has.
set(bad "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
  foreach(line IN LISTS weak)
    # _ZZN: names of nested lambdas that nm cannot demangle; DW.ref: data that points to the runtime's own functions.
    if(NOT line MATCHES "mdprop::${ISA}::|_ZZN6mdprop[0-9]+${ISA}[0-9]|DW\\.ref\\.")
      list(APPEND bad "${line}")
    endif()
  endforeach()
endforeach()
if(bad)
  list(JOIN bad "\n" text)
  message(FATAL_ERROR "weak symbols outside mdprop::${ISA}:\n${text}")
endif()
