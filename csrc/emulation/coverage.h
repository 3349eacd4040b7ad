// Which kernels, template arguments included, a process has run.
#pragma once

#include <string>

namespace mdprop::emulation {

// Appends the name to the file of the environment variable MDPROP_EMULATION_COVERAGE, once a process, if it is set.
void record_launch(const std::string& kernel);

}  // namespace mdprop::emulation
