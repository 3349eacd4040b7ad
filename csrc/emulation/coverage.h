// Which kernels, template arguments included, a process has run.
#pragma once

#include <string>
#include <typeinfo>

namespace mdprop::emulation {

template <auto kKernel>
struct KernelTag {};

// "void mdprop::kernel<float, 4>(int)" of the type KernelTag<mdprop::kernel<float, 4>>, as a demangler writes it.
std::string kernel_name(const std::type_info& tag);

// Appends the name to the file of the environment variable MDPROP_EMULATION_COVERAGE, once a process, if it is set.
void record_launch(const std::string& kernel);

}  // namespace mdprop::emulation
