// The probe kernel: every element, and nothing for no element.
#include "cuda_probe/cuda_probe.h"
#include "tests/check.h"
#include "tests/device_buffer.h"

int main() {
  DeviceBuffer<float> out(1000);
  mdprop::cuda_probe_cuda({out.data(), out.size(), nullptr});
  for (int64_t i = 0; i < out.size(); ++i) CHECK(out[i] == static_cast<float>(i));
  mdprop::cuda_probe_cuda({nullptr, 0, nullptr});
  return test_summary();
}
