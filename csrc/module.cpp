// The Python module _C. Importing it runs the registrations of every <op>_torch.cpp in the same shared object.
#include <pybind11/pybind11.h>

#include <sstream>
#include <string>

#include "common/cpu_isa.h"

namespace {

pybind11::list split(const std::string& text) {
  pybind11::list words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) words.append(word);
  return words;
}

// How this module was built, and which instruction set it runs.
pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = MDPROP_VERSION;
  info["torch"] = MDPROP_TORCH_VERSION;
#ifdef __clang__
  info["compiler"] = std::string("clang ") + __clang_version__;
#else
  info["compiler"] = std::string("gcc ") + __VERSION__;
#endif
#ifdef MDPROP_WITH_CUDA
  info["cuda"] = MDPROP_CUDA_VERSION;
  info["cuda_architectures"] = split(MDPROP_CUDA_ARCHITECTURES);
#else
  info["cuda"] = pybind11::none();
  info["cuda_architectures"] = pybind11::list();
#endif
#ifdef MDPROP_EMULATE
  info["emulated"] = true;
#else
  info["emulated"] = false;
#endif
  info["cpu_isas"] = split(mdprop::compiled_cpu_isas());
  info["cpu_isa"] = mdprop::cpu_isa_name(mdprop::cpu_isa());
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of mdprop_ext; importing it registers them with torch.";
  // An unusable MDPROP_CPU_ISA must stop the import, not the first op.
  mdprop::cpu_isa();
  module.def("build_info", &build_info, "How this module was built, as a dict.");
}
