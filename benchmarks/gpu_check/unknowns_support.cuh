// Memory, timing and JSON for unknowns.cu.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace unknowns {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Device memory that holds what a vector held, or nothing in particular.
template <typename T>
class Device {
 public:
  explicit Device(size_t count) : count_(count) { check(cudaMalloc(&memory_, count * sizeof(T)), "cudaMalloc"); }
  explicit Device(const std::vector<T>& values) : Device(values.size()) {
    check(cudaMemcpy(memory_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copy to the card");
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(memory_); }

  T* get() const { return memory_; }
  std::vector<T> host() const {
    std::vector<T> values(count_);
    check(cudaMemcpy(values.data(), memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "copy from the card");
    return values;
  }

 private:
  T* memory_ = nullptr;
  size_t count_;
};

// Seconds between two events round a call.
inline double seconds_of(const std::function<void()>& call) {
  cudaEvent_t start, end;
  check(cudaEventCreate(&start), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  check(cudaEventRecord(start), "cudaEventRecord");
  call();
  check(cudaEventRecord(end), "cudaEventRecord");
  check(cudaEventSynchronize(end), "kernel");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, start, end), "cudaEventElapsedTime");
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  return milliseconds * 1e-3;
}

// The median of some calls after two that do not count; `before` runs ahead of each, outside of the time.
inline double median_seconds(const std::function<void()>& call, const std::function<void()>& before = [] {}) {
  std::vector<double> seconds;
  for (int round = 0; round < 13; ++round) {
    before();
    const double taken = seconds_of(call);
    if (round >= 2) seconds.push_back(taken);
  }
  std::nth_element(seconds.begin(), seconds.begin() + 5, seconds.end());
  return seconds[5];
}

inline std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

inline std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') result += '\\';
    result += character == '\n' ? ' ' : character;
  }
  return result + "\"";
}

inline std::string object(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::string text = "{";
  for (const auto& [name, value] : fields) text += (text.size() > 1 ? ", " : "") + quoted(name) + ": " + value;
  return text + "}";
}

inline std::string array(const std::vector<std::string>& values) {
  std::string text = "[";
  for (const std::string& value : values) text += (text.size() > 1 ? ", " : "") + value;
  return text + "]";
}

}  // namespace unknowns
