// Hopper's instructions on the CPU: mbarriers, the copy engine, wgmma (the words of wgmma.cuh).
//
// Late, the default: a copy lands only when somebody waits for its barrier, a product only when its
// warpgroup waits for its group, and until then the destination is poisoned or old. Early (order >= 16):
// both happen at issue. A right kernel gives the same bits either way.
#pragma once
#include <functional>
#include <map>

#include "emu80.h"

struct alignas(64) TensorMap {
  const char* base;
  i64 extent[4], stride[4];  // elements; bytes
  int box[4];
  char rest[40];
};
static_assert(sizeof(TensorMap) == 128, "as large as CUtensorMap");

namespace emu {

struct Box {  // one copy in flight
  u32 to;
  TensorMap map;
  int at[4];
};
struct Mbarrier {
  int count = 0, pending = 0;
  long bytes = 0;
  long phase = 0;
  std::vector<Box> in_flight;
};
static std::map<u32, Mbarrier> mbarriers;
static Barrier named[16];
static int named_threads[16];

struct Product90 {  // one wgmma of a warpgroup
  int columns;
  bool accumulate, from_registers;
  u64 a, b;
  float* d[128];
  const u32* words[128];
  u32 kept[128][4];  // what the registers held at issue
};
struct Warpgroup {
  int arrived = 0;
  long generation = 0;
  const char* what = nullptr;
  void* slot[128];
  bool fenced = false;
  std::vector<Product90> open;
  std::vector<std::vector<Product90>> groups;
};
static Warpgroup warpgroup[kMaxThreads / 128];

static void clear90() {
  mbarriers.clear();
  for (Barrier& b : named) b = Barrier();
  for (int& n : named_threads) n = 0;
  for (Warpgroup& g : warpgroup) g = Warpgroup();
}
static const bool clears90 = (at_block_start.push_back(clear90), true);

inline Mbarrier& mbarrier(u32 address) {
  auto found = mbarriers.find(address);
  if (found == mbarriers.end()) fail("mbarrier at %u was never initialised", address);
  return found->second;
}
inline void settle(Mbarrier& b) {
  if (b.pending == 0 && b.bytes == 0) {
    b.phase++;
    b.pending = b.count;
  }
}

// The hardware's 128-byte swizzle: 16-byte chunk c of 128-byte row r lies at chunk c ^ (r & 7).
inline u32 swizzled(u32 address) { return address ^ (((address >> 7) & 7) << 4); }

inline long bytes_of(const TensorMap& m) { return 2L * m.box[0] * m.box[1]; }

inline void land(const Box& c) {
  const TensorMap& m = c.map;
  for (int row = 0; row < m.box[1]; row++)
    for (int col = 0; col < m.box[0]; col++) {
      const i64 x[4] = {c.at[0] + col, c.at[1] + row, c.at[2], c.at[3]};
      u16 value = 0;
      const char* from = m.base;
      bool inside = true;
      for (int i = 0; i < 4; i++) {
        inside &= x[i] >= 0 && x[i] < m.extent[i];
        from += x[i] * m.stride[i];
      }
      if (inside) memcpy(&value, from, 2);
      memcpy(shared_memory + swizzled(c.to + 2 * (row * m.box[0] + col)), &value, 2);
    }
}

inline void land_all(Mbarrier& b) {
  std::vector<Box> boxes;
  boxes.swap(b.in_flight);
  for (const Box& c : boxes) {
    land(c);
    b.bytes -= bytes_of(c.map);
  }
  if (!boxes.empty()) settle(b);
}

// A warpgroup's 128 threads meet, and the last one acts for all.
template <class Operands, class Act>
inline void meet128(const char* what, Operands& mine, Act act) {
  Warpgroup& g = warpgroup[current / 128];
  if (g.arrived && g.what != what) fail("a warpgroup's threads meet at %s and at %s", g.what, what);
  g.what = what;
  g.slot[current % 128] = &mine;
  const long seen = g.generation;
  if (++g.arrived == 128) {
    g.arrived = 0;
    act(g, (Operands**)g.slot);
    ++g.generation;
  } else {
    sleep_on(g.generation, seen);
  }
}

struct Descriptor {
  u32 start, leading, stride;
};
inline Descriptor decode(u64 bits) {
  if (bits >> 62 != 1) fail("a matrix descriptor without the 128-byte swizzle");
  return {(u32)(bits & 0x3fff) << 4, (u32)(bits >> 16 & 0x3fff) << 4, (u32)(bits >> 32 & 0x3fff) << 4};
}
inline float element(u32 address) {
  if (address + 2 > shared_bytes) fail("wgmma reads shared address %u, past %u bytes", address, shared_bytes);
  return of_half(shared_half(swizzled(address)), 0);
}
// Row-major over k, eight rows 1024 bytes: [row][16 k].
inline float by_row(const Descriptor& d, int row, int k) {
  return element(d.start + row / 8 * d.stride + row % 8 * 128 + 2 * k);
}
// k-major: 64-column boxes `leading` apart, eight k `stride` apart.
inline float by_column(const Descriptor& d, int col, int k) {
  return element(d.start + col / 64 * d.leading + col % 64 * 2 + k % 8 * 128 + k / 8 * d.stride);
}

inline void multiply90(const Product90& p) {
  static float a[64][16], b[16][256];
  const Descriptor da = p.from_registers ? Descriptor{} : decode(p.a), db = decode(p.b);
  for (int t = 0; t < 128; t++) {
    if (!p.from_registers) break;
    const int row = t / 32 * 16 + t % 32 / 4, col = t % 4 * 2;
    for (int i = 0; i < 4; i++) {
      if (p.words[t][i] != p.kept[t][i]) fail("wgmma: thread %d changed an operand in flight", t);
      for (int n = 0; n < 2; n++) a[row + 8 * (i & 1)][col + 8 * (i >> 1) + n] = of_half(p.kept[t][i], n);
    }
  }
  for (int k = 0; k < 16; k++) {
    for (int row = 0; row < 64 && !p.from_registers; row++) a[row][k] = by_row(da, row, k);
    for (int col = 0; col < p.columns; col++) b[k][col] = p.from_registers ? by_column(db, col, k) : by_row(db, col, k);
  }
  for (int row = 0; row < 64; row++) {
    double sum[256] = {};
    for (int k = 0; k < 16; k++)
      for (int col = 0; col < p.columns; col++) sum[col] += (double)a[row][k] * b[k][col];
    for (int col = 0; col < p.columns; col++) {
      float& d = p.d[row / 16 * 32 + row % 8 * 4 + col % 8 / 2][col / 8 * 4 + row % 16 / 8 * 2 + col % 2];
      d = (float)((p.accumulate ? d : 0.f) + sum[col]);
    }
  }
}

struct Operand90 {
  float* d;
  const u32* words;
  u64 a, b;
  bool accumulate;
};
inline void issue(const char* what, Operand90 mine, int columns) {
  meet128(what, mine, [=](Warpgroup& g, Operand90** threads_) {
    if (!g.fenced) fail("wgmma without wgmma.fence since the registers were last used");
    Product90 p;
    p.columns = columns;
    p.accumulate = threads_[0]->accumulate;
    p.from_registers = threads_[0]->words != nullptr;
    p.a = threads_[0]->a;
    p.b = threads_[0]->b;
    for (int t = 0; t < 128; t++) {
      const Operand90& o = *threads_[t];
      if (o.b != p.b || o.accumulate != p.accumulate || (!p.from_registers && o.a != p.a))
        fail("wgmma: thread %d of the warpgroup has another descriptor", t);
      p.d[t] = o.d;
      p.words[t] = o.words;
      if (p.from_registers) memcpy(p.kept[t], o.words, 16);
    }
    if (early) multiply90(p);
    else g.open.push_back(p);
  });
}

inline void arrive_named(int id, int needed) {
  if (named_threads[id] && named_threads[id] != needed) fail("named barrier %d: %d and %d threads", id, named_threads[id], needed);
  named_threads[id] = needed;
  arrive(named[id], needed);
  if (named[id].arrived == 0) named_threads[id] = 0;
}

}  // namespace emu

DEVICE void barrier_init(u32 at, u32 count) {
  emu::check_shared(at, 8, 8);
  emu::Mbarrier b;
  b.count = b.pending = (int)count;
  emu::mbarriers[at] = b;
}
DEVICE void barrier_init_fence() {}
DEVICE void barrier_arrive(u32 at) {
  emu::Mbarrier& b = emu::mbarrier(at);
  if (b.pending <= 0) emu::fail("mbarrier at %u: more arrivals than %d", at, b.count);
  b.pending--;
  emu::settle(b);
}
DEVICE void barrier_expect(u32 at, u32 bytes) {
  emu::mbarrier(at).bytes += bytes;
  barrier_arrive(at);
}
DEVICE void barrier_wait(u32 at, u32 parity) {
  emu::Mbarrier& b = emu::mbarrier(at);
  while ((b.phase & 1) == (long)(parity & 1)) {
    const long seen = b.phase;
    emu::land_all(b);
    if (b.phase == seen) emu::sleep_on(b.phase, seen);
  }
}
DEVICE void copy_box(u32 to, const TensorMap* map, u32 barrier, int channel, int row, int head, int batch) {
  emu::check_shared(to, (u32)emu::bytes_of(*map), 1024);
  emu::Mbarrier& b = emu::mbarrier(barrier);
  memset(emu::shared_memory + to, 0xff, emu::bytes_of(*map));
  b.in_flight.push_back({to, *map, {channel, row, head, batch}});
  // A waiter that sleeps on this barrier lands the copy when it next looks: here the engine does it for him.
  if (emu::early || emu::waited_for(b.phase)) emu::land_all(b);
}
DEVICE void wgmma_fence() { emu::warpgroup[emu::current / 128].fenced = true; }
DEVICE void wgmma_commit() {
  int none = 0;
  emu::meet128("wgmma.commit", none, [](emu::Warpgroup& g, int**) {
    g.groups.push_back(g.open);
    g.open.clear();
  });
}
template <int N>
DEVICE void wgmma_wait() {
  int none = 0;
  emu::meet128("wgmma.wait", none, [](emu::Warpgroup& g, int**) {
    while ((int)g.groups.size() > N) {
      for (const emu::Product90& p : g.groups.front()) emu::multiply90(p);
      g.groups.erase(g.groups.begin());
    }
    g.fenced = false;
  });
}
template <int N>
DEVICE void settled(float (&)[N]) {}
template <int N>
DEVICE void registers_up() {}
template <int N>
DEVICE void registers_down() {}
DEVICE void named_arrive(int id, int count) { emu::arrive_named(id, count); }
DEVICE void named_sync(int id, int count) {
  const long seen = emu::named[id].generation;
  emu::arrive_named(id, count);
  emu::sleep_on(emu::named[id].generation, seen);
}
DEVICE void trap() { emu::fail("trap"); }
template <int N>
DEVICE void rows_times_rows_async(float (&d)[N / 2], u64 a, u64 b, int accumulate) {
  emu::issue("wgmma rows x rows", {d, nullptr, a, b, accumulate != 0}, N);
}
template <int N>
DEVICE void weights_times_rows_async(float (&d)[N / 2], const u32 (&a)[4], u64 b) {
  emu::issue("wgmma registers x rows", {d, a, 0, b, true}, N);
}
