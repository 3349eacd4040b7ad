#include <cstring>
#include <new>

#include "emulation/thread.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

namespace mdprop::emulation {
namespace {

constexpr unsigned char kGuard = 0xc5;
constexpr std::align_val_t kAlignment{128};

// The rear guard starts right behind the data: its first bytes tell an access by one element too far.
size_t allocation_size(size_t bytes) { return bytes + 2 * kGuardBytes; }

}  // namespace

GuardedMemory::GuardedMemory(size_t bytes)
    : allocation_(static_cast<unsigned char*>(::operator new(allocation_size(bytes), kAlignment))),
      data_(allocation_ + kGuardBytes),
      size_(bytes) {
  std::memset(allocation_, kGuard, allocation_size(bytes));
  std::memset(data_, kPoison, bytes);
  ASAN_POISON_MEMORY_REGION(allocation_, kGuardBytes);
  ASAN_POISON_MEMORY_REGION(data_ + bytes, kGuardBytes);
}

GuardedMemory::GuardedMemory(GuardedMemory&& other) noexcept
    : allocation_(other.allocation_), data_(other.data_), size_(other.size_) {
  other.allocation_ = nullptr;
}

GuardedMemory::~GuardedMemory() {
  if (allocation_ == nullptr) return;
  ASAN_UNPOISON_MEMORY_REGION(allocation_, allocation_size(size_));
  ::operator delete(allocation_, kAlignment);
}

bool GuardedMemory::intact() const {
#if defined(__SANITIZE_ADDRESS__)
  return true;  // a write would have ended the program
#else
  for (size_t i = 0; i < kGuardBytes; ++i) {
    if (allocation_[i] != kGuard || data_[size_ + i] != kGuard) return false;
  }
  return true;
#endif
}

}  // namespace mdprop::emulation
