// What kernels that stream rows share: 16 bytes a thread and turn, sums over a block.
#pragma once
#include "common.cuh"

constexpr int kPack = 16 / (int)sizeof(scalar);  // elements in 16 bytes

// Elements c .. c + kPack - 1 of a row of n; zeros past its end. `whole`: 16-byte accesses are aligned.
DEVICE void load_pack(float (&x)[kPack], const scalar* row, int c, int n, bool whole) {
  union {
    Vec4 bits;
    scalar each[kPack];
  } pack;
  if (whole) {
    pack.bits = load_vec4(row + c);
    UNROLL
    for (int i = 0; i < kPack; i++) x[i] = load(pack.each + i);
  } else {
    UNROLL
    for (int i = 0; i < kPack; i++) x[i] = c + i < n ? load(row + c + i) : 0.f;
  }
}
DEVICE void store_pack(scalar* row, const float (&x)[kPack], int c, int n, bool whole) {
  union {
    Vec4 bits;
    scalar each[kPack];
  } pack;
  if (whole) {
    UNROLL
    for (int i = 0; i < kPack; i++) pack.each[i] = narrow(x[i]);
    store_vec4(row + c, pack.bits);
  } else {
    UNROLL
    for (int i = 0; i < kPack; i++)
      if (c + i < n) row[c + i] = narrow(x[i]);
  }
}

// The value rounded to storage and back: what a stored array would hold.
DEVICE float rounded(float x) {
  const scalar s = narrow(x);
  return load(&s);
}

// Sum over the block's threads, the same in every thread and run; `scratch` holds a float a warp.
DEVICE float block_sum(float x, float* scratch, int threads) {
  x = warp_sum(x);
  sync_block();  // the scratch may still be read from the call before
  if (thread() % 32 == 0) scratch[thread() / 32] = x;
  sync_block();
  float sum = 0;
  for (int w = 0; w < threads / 32; w++) sum += scratch[w];
  return sum;
}
