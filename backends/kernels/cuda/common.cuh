// The words that the kernels are written in. Sources include nothing of CUDA's: NVRTC has no headers.
// Under EMU, emulation/emu.h says the same words in C++.
#pragma once
#ifdef EMU
#include "emulation/emu.h"
#else
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef long long i64;
#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__
#define BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define UNROLL _Pragma("unroll")
#define GRID_CONSTANT __grid_constant__
#define NEG_INF (__int_as_float(0xff800000))
#ifndef BUG
#define BUG 0  // a seeded bug, for the tests: see SEEDED
#endif

DEVICE int thread() { return threadIdx.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int block_z() { return blockIdx.z; }
DEVICE void* shared_base() {
  extern __shared__ __align__(1024) unsigned char shared_[];
  return shared_;
}
DEVICE void sync_block() { __syncthreads(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float shuffle_from(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float log2_approx(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float rsqrt_(float x) { return rsqrtf(x); }
DEVICE u32 float_bits(float x) { return __float_as_uint(x); }
DEVICE float bits_float(u32 u) { return __uint_as_float(u); }
DEVICE u16 bf16_of(float x) {
  u16 h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
DEVICE float of_bf16(u16 h) { return __uint_as_float((u32)h << 16); }
DEVICE u16 f16_of(float x) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
DEVICE float of_f16(u16 h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
}
struct __align__(16) Vec4 { u32 x, y, z, w; };
DEVICE Vec4 load_vec4(const void* p) { return *(const Vec4*)p; }
DEVICE void store_vec4(void* p, Vec4 v) { *(Vec4*)p = v; }
#endif

// The right expression; or, in a build with that bug, the wrong one. The tests must notice.
#define SEEDED(bug, right, wrong) (BUG == (bug) ? (wrong) : (right))

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Storage: what arrays hold. Arithmetic is float32 in every kernel.
#define FLOAT32 0
#define FLOAT16 1
#define BFLOAT16 2
#ifndef STORAGE
#define STORAGE FLOAT32
#endif
#if STORAGE == FLOAT32
typedef float scalar;
DEVICE float load(const scalar* p) { return *p; }
DEVICE scalar narrow(float x) { return x; }
#elif STORAGE == FLOAT16
typedef u16 scalar;
DEVICE float load(const scalar* p) { return of_f16(*p); }
DEVICE scalar narrow(float x) { return f16_of(x); }
#else
typedef u16 scalar;
DEVICE float load(const scalar* p) { return of_bf16(*p); }
DEVICE scalar narrow(float x) { return bf16_of(x); }
#endif

DEVICE int least(int a, int b) { return a < b ? a : b; }
DEVICE int most(int a, int b) { return a > b ? a : b; }
DEVICE float warp_sum(float x) {
  UNROLL
  for (int lane = 16; lane; lane >>= 1) x += shuffle_xor(x, lane);
  return x;
}
DEVICE float warp_max(float x) {
  UNROLL
  for (int lane = 16; lane; lane >>= 1) x = fmaxf(x, shuffle_xor(x, lane));
  return x;
}
