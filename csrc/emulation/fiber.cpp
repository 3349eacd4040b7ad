#include "emulation/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace {

constexpr size_t kStackSize = 128 << 10;  // mapped, but only touched pages cost memory

size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

#if defined(__x86_64__)

// Saves the registers that a call must preserve and the stack pointer to *save, and goes on from `to`. ucontext would
// do, with two system calls a switch: a tensor-core product alone is 32 switches.
extern "C" void mdprop_switch_stack(void** save, void* to);
asm(R"(
  .text
  .p2align 4
  .globl mdprop_switch_stack
  .hidden mdprop_switch_stack
  .type mdprop_switch_stack, @function
mdprop_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size mdprop_switch_stack, .-mdprop_switch_stack
)");

// Where a new fiber starts: r12 holds the function, r13 its argument.
extern "C" void mdprop_start_fiber();
asm(R"(
  .text
  .p2align 4
  .globl mdprop_start_fiber
  .hidden mdprop_start_fiber
  .type mdprop_start_fiber, @function
mdprop_start_fiber:
  movq %r13, %rdi
  call *%r12
  ud2
  .size mdprop_start_fiber, .-mdprop_start_fiber
)");

namespace {

void* prepare_stack(unsigned char* top, void (*function)(void*), void* argument) {
  void** slot = reinterpret_cast<void**>(top);
  slot -= 2;  // keeps the stack 16-byte aligned at the call of `function`
  *--slot = reinterpret_cast<void*>(&mdprop_start_fiber);
  *--slot = nullptr;                            // rbp
  *--slot = nullptr;                            // rbx
  *--slot = reinterpret_cast<void*>(function);  // r12
  *--slot = argument;                           // r13
  *--slot = nullptr;                            // r14
  *--slot = nullptr;                            // r15
  return slot;
}

void switch_stack(void** save, void* to) { mdprop_switch_stack(save, to); }

}  // namespace

#else

namespace {

// The saved stack pointer is that of a context kept on the saved stack itself.
void switch_stack(void** save, void* to) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

void call_pointers(unsigned function_high, unsigned function_low, unsigned argument_high, unsigned argument_low) {
  const auto join = [](unsigned high, unsigned low) { return reinterpret_cast<void*>((uint64_t{high} << 32) | low); };
  reinterpret_cast<void (*)(void*)>(join(function_high, function_low))(join(argument_high, argument_low));
}

void* prepare_stack(unsigned char* top, void (*function)(void*), void* argument) {
  auto* context = reinterpret_cast<ucontext_t*>(top - (sizeof(ucontext_t) + 64) / 64 * 64);
  getcontext(context);
  context->uc_stack.ss_sp = top - kStackSize;
  context->uc_stack.ss_size = reinterpret_cast<unsigned char*>(context) - (top - kStackSize);
  context->uc_link = nullptr;
  const auto halves = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  const uint64_t f = halves(reinterpret_cast<void*>(function)), a = halves(argument);
  makecontext(context, reinterpret_cast<void (*)()>(&call_pointers), 4, unsigned(f >> 32), unsigned(f),
              unsigned(a >> 32), unsigned(a));
  return context;
}

}  // namespace

#endif

namespace mdprop::emulation {

Fiber::Fiber() {
  void* mapping = mmap(nullptr, page_size() + kStackSize, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping, page_size(), PROT_NONE);
  mapping_ = static_cast<unsigned char*>(mapping);
}

Fiber::~Fiber() { munmap(mapping_, page_size() + kStackSize); }

void Fiber::start(Body body, void* context) {
  body_ = body;
  context_ = context;
  own_fake_stack_ = nullptr;
  unsigned char* stack = mapping_ + page_size();
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kStackSize);  // an abandoned body may have left its marks
#endif
  stack_pointer_ = prepare_stack(stack + kStackSize, [](void* fiber) { enter(static_cast<Fiber*>(fiber)); }, this);
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&caller_fake_stack_, mapping_ + page_size(), kStackSize);
#endif
  switch_stack(&caller_stack_pointer_, stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::suspend() { leave(false); }

void Fiber::enter(Fiber* fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &fiber->caller_stack_, &fiber->caller_stack_size_);
#endif
  fiber->body_(fiber->context_);
  fiber->leave(true);
}

void Fiber::leave([[maybe_unused]] bool for_ever) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &own_fake_stack_, caller_stack_, caller_stack_size_);
#endif
  switch_stack(&stack_pointer_, caller_stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_fake_stack_, &caller_stack_, &caller_stack_size_);
#endif
}

}  // namespace mdprop::emulation
