// A function that can stop in the middle and go on later, on a stack of its own: one CUDA thread of the emulation.
#pragma once

#include <cstddef>

namespace mdprop::emulation {

// Runs on whichever system thread calls resume(). Its body must not throw. A fiber that is destroyed before it ends is
// abandoned: what is on its stack gets no destructor.
class Fiber {
 public:
  using Body = void (*)(void* context);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes body(context) what the next resume() runs.
  void start(Body body, void* context);
  // Runs the body until it suspends or ends.
  void resume();
  // Called on the fiber: goes back to resume()'s caller until the next resume().
  void suspend();

 private:
  static void enter(Fiber* fiber);
  void leave(bool for_ever);

  unsigned char* mapping_;  // one inaccessible page, then the stack
  void* stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  Body body_ = nullptr;
  void* context_ = nullptr;
  // What AddressSanitizer has to know of the two stacks.
  void* own_fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_size_ = 0;
};

}  // namespace mdprop::emulation
