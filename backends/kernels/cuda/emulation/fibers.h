// Fibers: one CUDA thread is one stack that runs until it has to wait for others.
//
// On x86-64 a switch is eleven instructions; elsewhere, or under -DEMU_UCONTEXT, it is swapcontext,
// which asks the kernel for the signal mask each time and costs twenty times as much.
#pragma once
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
struct Context {
  void* top;
};
asm(R"(
.text
.p2align 4
.local emu_switch
emu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov (%rsi), %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
extern "C" void emu_switch(Context* from, Context* to);
inline void swap(Context* from, Context* to) { emu_switch(from, to); }
inline void prepare(Context* c, char* stack, size_t bytes, void (*entry)()) {
  void** top = (void**)((uintptr_t)(stack + bytes) & ~uintptr_t(15)) - 2;  // entry sees rsp = 8 mod 16
  *top = (void*)entry;
  top -= 6;
  memset(top, 0, 6 * sizeof(void*));
  c->top = top;
}
#else
typedef ucontext_t Context;
inline void swap(Context* from, Context* to) { swapcontext(from, to); }
inline void prepare(Context* c, char* stack, size_t bytes, void (*entry)()) {
  getcontext(c);
  c->uc_stack.ss_sp = stack;
  c->uc_stack.ss_size = bytes;
  c->uc_link = nullptr;
  makecontext(c, entry, 0);
}
#endif

// AddressSanitizer must be told of every switch, or it takes one stack for another.
struct Fiber {
  Context context;
  char* stack = nullptr;
  void* shadow = nullptr;
  bool done = false;
  const long* gate = nullptr;  // asleep while *gate == seen
  long seen = 0;
};

constexpr size_t kStack = 256 << 10;
static Context scheduler;
static const void* scheduler_stack = nullptr;
static size_t scheduler_bytes = 0;

inline void enter(Fiber& f) {  // scheduler -> fiber
#if defined(__SANITIZE_ADDRESS__)
  void* shadow;
  __sanitizer_start_switch_fiber(&shadow, f.stack, kStack);
  swap(&scheduler, &f.context);
  __sanitizer_finish_switch_fiber(shadow, nullptr, nullptr);
#else
  swap(&scheduler, &f.context);
#endif
}

inline void leave(Fiber& f) {  // fiber -> scheduler
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(f.done ? nullptr : &f.shadow, scheduler_stack, scheduler_bytes);
  swap(&f.context, &scheduler);
  __sanitizer_finish_switch_fiber(f.shadow, &scheduler_stack, &scheduler_bytes);
#else
  swap(&f.context, &scheduler);
#endif
}

inline void begun() {  // first thing on a fiber's own stack
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
}

}  // namespace emu
