// Are descriptors, swizzle and copy boxes what we take them to be? One warpgroup, exact integers.
//
//     rows    [64 x 128] = A B^T   A[64 x 128], B[128 x 128] by the copy engine, both by descriptors of rows
//     columns [64 x 128] = A B     A in registers, B by descriptors of columns
//
// B's map ends early: what lies beyond must come as zeros. Grid (1), 128 threads, 48 KiB and 8 bytes shared.
#include "wgmma.cuh"

struct Probe {
  scalar* a;
  float* rows;
  float* columns;
};

KERNEL void BOUNDS(128, 1) probe_wgmma(const GRID_CONSTANT TensorMap a, const GRID_CONSTANT TensorMap b, const Probe p) {
  const int warp = thread() / 32, lane = thread() % 32, row = 16 * warp + lane / 4;
  const u32 a_tile = shared_address(), b_tile = a_tile + 64 * 256, full = b_tile + 128 * 256;
  if (a_tile & 1023) trap();
  if (thread() == 0) {
    barrier_init(full, 1);
    barrier_init_fence();
  }
  sync_block();
  if (thread() == 0) {
    barrier_expect(full, (64 + 128) * 256);
    for (int c = 0; c < 2; c++) {
      copy_box(a_tile + c * 64 * 128, &a, full, 64 * c, 0, 0, 0);
      copy_box(b_tile + c * 128 * 128, &b, full, 64 * c, 0, 0, 0);
    }
  }
  barrier_wait(full, 0);

  float rows[64], columns[64];
  u32 left[8][4];
  UNROLL
  for (int n = 0; n < 64; n++) rows[n] = columns[n] = 0;
  UNROLL
  for (int k = 0; k < 8; k++)
    UNROLL
    for (int x = 0; x < 4; x++) {
      const scalar* at = p.a + (row + 8 * (x & 1)) * 128 + 16 * k + 8 * (x >> 1) + 2 * (lane % 4);
      left[k][x] = pack2(load(at), load(at + 1));
    }
  wgmma_fence();
  UNROLL
  for (int k = 0; k < 8; k++) {
    const u32 inside = k % 4 * 32;
    rows_times_rows_async<128>(rows, descriptor(a_tile + k / 4 * 64 * 128 + inside, 16, 1024),
                               descriptor(b_tile + k / 4 * 128 * 128 + inside, 16, 1024), k > 0);
  }
  UNROLL
  for (int k = 0; k < 8; k++)
    weights_times_rows_async<128>(columns, left[k], descriptor(b_tile + k * 2048, 128 * 128, 1024));
  wgmma_commit();
  wgmma_wait<0>();
  settled(rows);
  settled(columns);
  UNROLL
  for (int n = 0; n < 64; n++) {
    const int at = (row + 8 * (n >> 1 & 1)) * 128 + n / 4 * 8 + 2 * (lane % 4) + (n & 1);
    p.rows[at] = rows[n];
    p.columns[at] = columns[n];
  }
}
