// Hopper's words: mbarriers, the copy engine, and products of a whole warpgroup that do not wait.
#pragma once
#include "mma.cuh"
#ifdef EMU
#include "emulation/emu90.h"
#else
struct __align__(64) TensorMap { unsigned char bytes[128]; };

DEVICE void barrier_init(u32 at, u32 count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count)); }
// After initialising, before any other thread or the copy engine looks.
DEVICE void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void barrier_arrive(u32 at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
// Arrive, and let the phase also wait for so many bytes of copies.
DEVICE void barrier_expect(u32 at, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
// Until the phase of this parity is complete: the first has parity 0.
DEVICE void barrier_wait(u32 at, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(at), "r"(parity)
        : "memory");
  } while (!done);
}
// A box of a tensor into shared memory, swizzled by 128 bytes; what lies outside the tensor becomes zeros.
DEVICE void copy_box(u32 to, const TensorMap* map, u32 barrier, int channel, int row, int head, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
      ::"r"(to), "l"((u64)map), "r"(barrier), "r"(channel), "r"(row), "r"(head), "r"(batch)
      : "memory");
}
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// All but the last N committed groups are done.
template <int N>
DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// An accumulator is written behind the compiler's back: its uses stay on this side of the wait before.
template <int N>
DEVICE void settled(float (&d)[N]) {
  UNROLL
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N>
DEVICE void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
DEVICE void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
DEVICE void named_arrive(int id, int count) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory"); }
DEVICE void named_sync(int id, int count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }
DEVICE void trap() { asm volatile("trap;"); }

// wgmma's accumulator is N / 2 registers a thread, each an operand of one instruction. An instruction names its
// operands by number, so the lists below are written out: REGISTERS_n, the operands, NUMBERS_n, their numbers.
#define REGISTERS_8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define REGISTERS_32_AT(d, i) REGISTERS_8(d, i), REGISTERS_8(d, i + 8), REGISTERS_8(d, i + 16), REGISTERS_8(d, i + 24)
#define REGISTERS_32(d) REGISTERS_32_AT(d, 0)
#define REGISTERS_64(d) REGISTERS_32_AT(d, 0), REGISTERS_32_AT(d, 32)
#define REGISTERS_88(d) REGISTERS_64(d), REGISTERS_8(d, 64), REGISTERS_8(d, 72), REGISTERS_8(d, 80)
#define NUMBERS_32  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NUMBERS_64 NUMBERS_32 ", "  \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NUMBERS_88 NUMBERS_64 ", "  \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87"

// d[64 x N] (+)= A[64 x 16] B[N x 16]^T, both in shared memory by descriptors of rows.
#define ROWS_TIMES_ROWS(N, COUNT, A, B, P)                                                                    \
  template <>                                                                                                 \
  DEVICE void rows_times_rows_async<N>(float (&d)[COUNT], u64 a, u64 b, int accumulate) {                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N            \
                 "k16.f32." HALF_PTX "." HALF_PTX " {" NUMBERS_##COUNT "}, " A ", " B ", p, 1, 1, 0, 0;\n}"     \
                 : REGISTERS_##COUNT(d)                                                                       \
                 : "l"(a), "l"(b), "r"(accumulate));                                                          \
  }
template <int N>
DEVICE void rows_times_rows_async(float (&d)[N / 2], u64 a, u64 b, int accumulate);
ROWS_TIMES_ROWS(128, 64, "%64", "%65", "%66")
ROWS_TIMES_ROWS(176, 88, "%88", "%89", "%90")

// d[64 x N] += A[64 x 16] B[16 x N], A in registers, B in shared memory by a descriptor of columns.
#define WEIGHTS_TIMES_ROWS(N, COUNT, A, B)                                                                    \
  template <>                                                                                                 \
  DEVICE void weights_times_rows_async<N>(float (&d)[COUNT], const u32 (&a)[4], u64 b) {                      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." HALF_PTX "." HALF_PTX " {" NUMBERS_##COUNT   \
                 "}, {" A "}, " B ", 1, 1, 1, 1;"                                                                \
                 : REGISTERS_##COUNT(d)                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                       \
  }
template <int N>
DEVICE void weights_times_rows_async(float (&d)[N / 2], const u32 (&a)[4], u64 b);
WEIGHTS_TIMES_ROWS(64, 32, "%32, %33, %34, %35", "%36")
WEIGHTS_TIMES_ROWS(128, 64, "%64, %65, %66, %67", "%68")
#endif

// Of a matrix in shared memory with the 128-byte swizzle. Rows of 64 halves: `leading` is not used, eight rows
// are `stride` bytes. Columns: boxes of 64 columns are `leading` bytes apart, eight k `stride` bytes.
DEVICE u64 descriptor(u32 address, u32 leading, u32 stride) {
  return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | 1ull << 62;
}
