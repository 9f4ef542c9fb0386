// Small kernels, each with one fault that the emulation must see, beside the same kernel without it (BUG 0).
#include "mma.cuh"

struct Faulty {
  float* out;  // [threads]
  scalar* in;
};

// Neighbours exchange through shared memory. 1: no barrier. 2: half the threads skip it. 3: past the end.
KERNEL void BOUNDS(64, 1) exchange(const Faulty p) {
  float* tile = (float*)shared_base();
  const int t = thread();
  tile[t] = (float)t;
  if (BUG != 1 && !(BUG == 2 && t < 32)) sync_block();
  p.out[t] = tile[63 - t];
}

// A slot that nobody wrote is NaN.
KERNEL void BOUNDS(64, 1) unwritten(const Faulty p) { p.out[thread()] = ((float*)shared_base())[thread()]; }

// 16 bytes a thread by cp.async. 4: no wait. 5: waits for the group before. 6: misaligned. 7: past the end.
KERNEL void BOUNDS(32, 1) copied(const Faulty p) {
  const u32 to = shared_address() + 16 * thread() + (BUG == 6 ? 4 : 0) + (BUG == 7 ? 16 : 0);
  copy16(to, p.in + 8 * thread(), true);
  copy_commit();
  if (BUG == 5) copy_wait<1>();
  else if (BUG != 4) copy_wait<0>();
  p.out[thread()] = load((scalar*)shared_base() + 8 * thread());
}

// A sum over the warp. 8: one half of it takes part in another instruction.
KERNEL void BOUNDS(32, 1) summed(const Faulty p) {
  const float x = (float)thread();
  p.out[thread()] = BUG == 8 && thread() < 16 ? shuffle_from(x, 0) : warp_sum(x);
}
