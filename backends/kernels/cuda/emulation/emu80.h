// Ampere's instructions on the CPU: asynchronous copies, ldmatrix, mma.sync (the words of mma.cuh).
//
// A copy poisons its destination when it is issued and lands only when its thread waits for it: a wait
// that is missing, or one group short, reads NaN.
#pragma once
#include "emu.h"

namespace emu {

struct Copy {
  u32 to;
  const void* from;
  bool valid;
};
static std::vector<Copy> open_copies[kMaxThreads];
static std::vector<std::vector<Copy>> copy_groups[kMaxThreads];

inline void clear_copies() {
  for (int i = 0; i < threads; i++) open_copies[i].clear(), copy_groups[i].clear();
}
static const bool clears_copies = (at_block_start.push_back(clear_copies), true);

inline void land(const Copy& c) {
  if (c.valid) memcpy(shared_memory + c.to, c.from, 16);
  else memset(shared_memory + c.to, 0, 16);
}
inline u16 shared_half(u32 address) {
  u16 h;
  memcpy(&h, shared_memory + address, 2);
  return h;
}
#if STORAGE == FLOAT16
inline float of_half(u32 word, int n) { return of_f16((u16)(word >> (16 * n))); }
#else
inline float of_half(u32 word, int n) { return of_bf16((u16)(word >> (16 * n))); }
#endif

struct Matrix4 {
  u32 address;
  u32* out;
};
// Lane 8 m + r gives the address of row r of matrix m; lane l receives row l / 4, columns 2 (l % 4) + (0, 1)
// of each, or of its transpose.
inline void load_matrices(Matrix4** lanes, bool transposed) {
  for (int m = 0; m < 4; m++)
    for (int l = 0; l < 32; l++) {
      u32 word = 0;
      for (int n = 0; n < 2; n++) {
        const int row = transposed ? l % 4 * 2 + n : l / 4, col = transposed ? l / 4 : l % 4 * 2 + n;
        word |= (u32)shared_half(lanes[8 * m + row]->address + 2 * col) << (16 * n);
      }
      lanes[l]->out[m] = word;
    }
}

struct Product {
  float* c;
  const u32* a;
  u32 b0, b1;
};
// m16n8k16: lane 4 g + t holds a rows g, g + 8, columns 2 t, 2 t + 8 (+1); b rows likewise of column g;
// c rows g, g + 8, columns 2 t (+1).
inline void multiply(Product** lanes) {
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; l++) {
    const int g = l / 4, t = l % 4;
    for (int n = 0; n < 2; n++) {
      for (int i = 0; i < 4; i++) a[g + 8 * (i & 1)][2 * t + 8 * (i >> 1) + n] = of_half(lanes[l]->a[i], n);
      b[2 * t + n][g] = of_half(lanes[l]->b0, n);
      b[2 * t + 8 + n][g] = of_half(lanes[l]->b1, n);
    }
  }
  for (int row = 0; row < 16; row++) {
    double sum[8] = {};
    for (int k = 0; k < 16; k++)
      for (int col = 0; col < 8; col++) sum[col] += (double)a[row][k] * b[k][col];
    for (int col = 0; col < 8; col++) {
      float& c = lanes[row % 8 * 4 + col / 2]->c[row / 8 * 2 + col % 2];
      c = (float)(c + sum[col]);
    }
  }
}

}  // namespace emu

DEVICE u32 shared_address() { return 0; }
DEVICE void copy16(u32 to, const void* from, bool valid) {
  emu::check_shared(to, 16, 16);
  if ((uintptr_t)from % 16) emu::fail("a 16-byte copy from an address that is no multiple of 16");
  memset(emu::shared_memory + to, 0xff, 16);
  emu::open_copies[emu::current].push_back({to, from, valid});
}
DEVICE void copy_commit() {
  emu::copy_groups[emu::current].push_back(emu::open_copies[emu::current]);
  emu::open_copies[emu::current].clear();
}
template <int N>
DEVICE void copy_wait() {
  auto& groups = emu::copy_groups[emu::current];
  while ((int)groups.size() > N) {
    for (const emu::Copy& c : groups.front()) emu::land(c);
    groups.erase(groups.begin());
  }
}
DEVICE void load_matrix4(u32 (&out)[4], u32 address) {
  emu::check_shared(address, 16, 16);
  emu::Matrix4 mine{address, out};
  emu::collective("ldmatrix", mine, [](emu::Matrix4** lanes) { emu::load_matrices(lanes, false); });
}
DEVICE void load_matrix4_transposed(u32 (&out)[4], u32 address) {
  emu::check_shared(address, 16, 16);
  emu::Matrix4 mine{address, out};
  emu::collective("ldmatrix.trans", mine, [](emu::Matrix4** lanes) { emu::load_matrices(lanes, true); });
}
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  emu::Product mine{c, a, b0, b1};
  emu::collective("mma", mine, emu::multiply);
}
DEVICE u32 pack2(float low, float high) { return (u32)narrow(low) | ((u32)narrow(high) << 16); }
