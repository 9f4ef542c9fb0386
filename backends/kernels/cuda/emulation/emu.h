// Runs a kernel on one CPU thread: blocks in turn, the threads of a block as fibers.
//
// It says the words of common.cuh under -DEMU. What it sees: results, wrong
// indices, reads of shared memory that nobody wrote (it starts as NaN), missing barriers (in several
// orders of the threads), barriers that not all threads reach (a deadlock is reported), warps whose
// lanes disagree about the instruction. What it cannot see: memory ordering between barriers, bank
// conflicts, speed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <utility>
#include <vector>

#include "fibers.h"

typedef uint32_t u32;
typedef uint64_t u64;
typedef uint16_t u16;
typedef long long i64;
#define DEVICE static inline
#define KERNEL extern "C"
#define BOUNDS(threads, blocks)
#define UNROLL
#define GRID_CONSTANT
#define NEG_INF (-INFINITY)
// A seeded bug: -DBUG=n builds the kernel with the n-th wrong line; without it emu_set_bug(n) chooses.
#ifndef BUG
#define BUG emu::bug
#endif

namespace emu {

// State is static, not inline: the loader would share an inline variable among all loaded libraries.
static int bug = 0;

constexpr int kMaxThreads = 1024, kMaxWarps = kMaxThreads / 32;
constexpr u32 kMaxShared = 232448;

struct Barrier {
  int arrived = 0;
  long generation = 0;
};
struct Warp {
  int arrived = 0;
  long generation = 0;
  const char* what = nullptr;
  void* slot[32];
};

static Fiber fiber[kMaxThreads];
static Warp warp[kMaxWarps];
static Barrier block_barrier;
static int current, threads, block[3];
static unsigned char* shared_memory;
static u32 shared_bytes;
static char error[256];
static bool failed, early;
static void (*body)(void**);
static void** arguments;
static std::vector<void (*)()> at_block_start;  // what emu80.h and emu90.h must clear

// Ends the launch: the message is what `launch` reports.
[[noreturn]] inline void fail(const char* format, ...) {
  va_list rest;
  va_start(rest, format);
  int used = snprintf(error, sizeof error, "block (%d, %d, %d) thread %d: ", block[0], block[1], block[2], current);
  vsnprintf(error + used, sizeof error - used, format, rest);
  va_end(rest);
  failed = true;
  for (;;) leave(fiber[current]);
}

inline void sleep_on(const long& generation, long seen) {
  Fiber& f = fiber[current];
  while (generation == seen) {
    f.gate = &generation;
    f.seen = seen;
    leave(f);
  }
  f.gate = nullptr;
}

inline bool waited_for(const long& generation) {
  for (int i = 0; i < threads; i++)
    if (!fiber[i].done && fiber[i].gate == &generation && generation == fiber[i].seen) return true;
  return false;
}

inline void arrive(Barrier& b, int needed) {
  if (++b.arrived == needed) b.arrived = 0, ++b.generation;
}

inline void meet(Barrier& b, int needed) {
  const long seen = b.generation;
  arrive(b, needed);
  sleep_on(b.generation, seen);
}

// All 32 lanes hand in their operands; the last to come computes for all of them.
template <class Operands, class Compute>
inline void collective(const char* what, Operands& mine, Compute compute) {
  Warp& w = warp[current / 32];
  if (w.arrived && w.what != what) fail("a warp's lanes meet at %s and at %s", w.what, what);
  w.what = what;
  w.slot[current % 32] = &mine;
  const long seen = w.generation;
  if (++w.arrived == 32) {
    w.arrived = 0;
    compute((Operands**)w.slot);
    ++w.generation;
  } else {
    sleep_on(w.generation, seen);
  }
}

inline void check_shared(u32 address, u32 bytes, u32 alignment) {
  if (address % alignment) fail("shared address %u is no multiple of %u", address, alignment);
  if (address + bytes > shared_bytes) fail("shared address %u + %u is past %u bytes", address, bytes, shared_bytes);
}

inline void run_fiber() {
  begun();
  body(arguments);
  fiber[current].done = true;
  leave(fiber[current]);
}

inline bool run_block(int order, u64& random) {
  memset(shared_memory, 0xff, shared_bytes);  // NaN in float32, float16 and bfloat16
  block_barrier = Barrier();
  for (Warp& w : warp) w = Warp();
  for (auto clear : at_block_start) clear();
  int turn[kMaxThreads];
  for (int i = 0; i < threads; i++) {
    Fiber& f = fiber[i];
    f.done = false;
    f.gate = nullptr;
    f.shadow = nullptr;
    if (!f.stack) f.stack = (char*)malloc(kStack);
    prepare(&f.context, f.stack, kStack, run_fiber);
    turn[i] = order == 1 || order == 3 ? threads - 1 - i : i;
  }
  // One step of the threads turn[from] .. turn[to - 1]; whether any could move.
  auto step = [&](int from, int to) {
    bool ran = false;
    for (int n = from; n < to && !failed; n++) {
      Fiber& f = fiber[turn[n]];
      if (f.done || (f.gate && *f.gate == f.seen)) continue;
      current = turn[n];
      enter(f);
      ran = true;
    }
    return ran;
  };
  for (;;) {
    if (order > 3)
      for (int i = threads - 1; i > 0; i--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        std::swap(turn[i], turn[(random >> 33) % (i + 1)]);
      }
    bool ran = false;
    if (order == 2 || order == 3) {
      for (int w = 0; w < threads; w += 32)
        while (step(w, w + 32)) ran = true;
    } else {
      ran = step(0, threads);
    }
    if (failed) return false;
    int left = 0;
    for (int i = 0; i < threads; i++) left += !fiber[i].done;
    if (!left) break;
    if (!ran) {
      snprintf(error, sizeof error, "block (%d, %d, %d): deadlock, %d of %d threads wait for ever", block[0],
               block[1], block[2], left, threads);
      return false;
    }
  }
  return true;
}

// The order of the threads. 0, 1: all in step, ascending or descending. 2, 3: a warp runs as far as it can
// before the next one starts, the first or the last warp leading. More: in step, shuffled by that seed.
// Plus 16: what is asynchronous happens at issue (emu90.h).
inline int launch(const int* grid, int block_threads, u32 bytes, int order, void (*kernel)(void**), void** args) {
  early = order >= 16;
  order %= 16;
  threads = block_threads;
  body = kernel;
  arguments = args;
  failed = false;
  error[0] = 0;
  if (threads < 32 || threads > kMaxThreads || threads % 32) {
    snprintf(error, sizeof error, "%d threads a block; needed a multiple of 32 up to 1024", threads);
    return 1;
  }
  if (bytes > kMaxShared) {
    snprintf(error, sizeof error, "%u bytes of shared memory; at most %u", bytes, kMaxShared);
    return 1;
  }
  shared_bytes = bytes;
  const size_t rounded = ((bytes + 1023) / 1024 + 1) * 1024;
  unsigned char* raw = (unsigned char*)malloc(rounded);  // exact to the byte above: a sanitizer sees the end
  shared_memory = (unsigned char*)(((uintptr_t)raw + 1023) & ~uintptr_t(1023));
  u64 random = 0x9E3779B97F4A7C15u * (u64)(order + 1);
  bool good = true;
  for (block[2] = 0; good && block[2] < grid[2]; block[2]++)
    for (block[1] = 0; good && block[1] < grid[1]; block[1]++)
      for (block[0] = 0; good && block[0] < grid[0]; block[0]++) good = run_block(order, random);
  free(raw);
  return good ? 0 : 1;
}

// Calls kernel(*(A0*)args[0], ...): the calling convention of cuLaunchKernel.
template <class... A, size_t... I>
inline void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_const_t<std::remove_reference_t<A>>*)args[I]...);
}
template <class... A>
inline void call(void (*kernel)(A...), void** args) {
  call(kernel, args, std::index_sequence_for<A...>());
}

}  // namespace emu

// One entry a kernel: run_NAME(grid, threads, shared bytes, order, args).
#define EMU_EXPORT(name)                                                                                    \
  extern "C" int run_##name(const int* grid, int threads, unsigned bytes, int order, void** args) {         \
    return emu::launch(grid, threads, bytes, order, [](void** a) { emu::call(name, a); }, args);            \
  }
#define EMU_SIZE(name) \
  extern "C" int size_of_##name() { return sizeof(name); }
#define EMU_ERROR                                          \
  extern "C" const char* emu_error() { return emu::error; } \
  extern "C" void emu_set_bug(int n) { emu::bug = n; }

// ---- the vocabulary of common.cuh ----

DEVICE int thread() { return emu::current; }
DEVICE int block_x() { return emu::block[0]; }
DEVICE int block_y() { return emu::block[1]; }
DEVICE int block_z() { return emu::block[2]; }
DEVICE void* shared_base() { return emu::shared_memory; }
DEVICE void sync_block() { emu::meet(emu::block_barrier, emu::threads); }

struct EmuShuffle {
  float value;
  int source;
  float result;
};
DEVICE float emu_shuffle(const char* what, float value, int source) {
  EmuShuffle mine{value, source, 0};
  emu::collective(what, mine, [](EmuShuffle** lanes) {
    for (int i = 0; i < 32; i++) lanes[i]->result = lanes[lanes[i]->source & 31]->value;
  });
  return mine.result;
}
DEVICE float shuffle_xor(float value, int mask) { return emu_shuffle("shuffle_xor", value, (emu::current % 32) ^ mask); }
DEVICE float shuffle_from(float value, int lane) { return emu_shuffle("shuffle_from", value, lane); }

DEVICE float exp2_approx(float x) { return exp2f(x); }
DEVICE float log2_approx(float x) { return log2f(x); }
DEVICE float reciprocal_approx(float x) { return 1.0f / x; }
DEVICE float rsqrt_(float x) { return 1.0f / sqrtf(x); }
DEVICE u32 float_bits(float x) { u32 u; memcpy(&u, &x, 4); return u; }
DEVICE float bits_float(u32 u) { float x; memcpy(&x, &u, 4); return x; }
DEVICE u16 bf16_of(float x) {  // round to nearest, ties to even
  u32 u = float_bits(x);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
DEVICE float of_bf16(u16 h) { return bits_float((u32)h << 16); }
DEVICE u16 f16_of(float x) { _Float16 h = (_Float16)x; u16 u; memcpy(&u, &h, 2); return u; }
DEVICE float of_f16(u16 u) { _Float16 h; memcpy(&h, &u, 2); return (float)h; }
struct alignas(16) Vec4 { u32 x, y, z, w; };
DEVICE Vec4 load_vec4(const void* p) {
  if ((uintptr_t)p % 16) emu::fail("a 16-byte load from an address that is no multiple of 16");
  return *(const Vec4*)p;
}
DEVICE void store_vec4(void* p, Vec4 v) {
  if ((uintptr_t)p % 16) emu::fail("a 16-byte store to an address that is no multiple of 16");
  *(Vec4*)p = v;
}
