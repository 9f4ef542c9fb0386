// Ampere's words: copies that do not wait, matrices out of shared memory, 16 x 8 x 16 products.
// STORAGE says whether halves are float16 or bfloat16.
#pragma once
#include "common.cuh"
#ifdef EMU
#include "emulation/emu80.h"
#else
DEVICE u32 shared_address() { return (u32)__cvta_generic_to_shared(shared_base()); }
// 16 bytes into shared memory; zeros if not valid. Lands by copy_wait<N>: all but the last N groups.
DEVICE void copy16(u32 to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
// Four 8 x 8 matrices; lane 8 m + r gives the address of row r of matrix m.
DEVICE void load_matrix4(u32 (&out)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}
DEVICE void load_matrix4_transposed(u32 (&out)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}
#if STORAGE == FLOAT16
#define HALF_PTX "f16"
#define HALF2_PTX "f16x2"
#else
#define HALF_PTX "bf16"
#define HALF2_PTX "bf16x2"
#endif
// c[16 x 8] += a[16 x 16] b[16 x 8]
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." HALF_PTX "." HALF_PTX
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE u32 pack2(float low, float high) {
  u32 word;
  asm("cvt.rn." HALF2_PTX ".f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
#endif
