// Level 2 attention, forward: FlashAttention-3 (2407.08608) for compute capability 9.0.
//
// One producer warpgroup asks the copy engine for tiles of keys and values, two stages of each ahead. The
// consumers, a warpgroup for 64 query rows, multiply: S = Q K[n]^T is issued, then O += P[n - 1] V[n - 1], and
// while the tensor cores do the second the softmax of the first is computed. Consumers take turns to issue
// (ping-pong): one multiplies while another exponentiates.
//
//     HEAD_DIM 128: two consumers, tiles of 128 rows x COLS keys        HEAD_DIM 64: three, 192 x 128
//
// d = e = HEAD_DIM; no lower band edge, no segments. Grid (row blocks, H, B); the maps' key extents end where
// the last row sees no further, so that junk beyond comes as zeros.
#include "attention.cuh"
#include "wgmma.cuh"

#ifndef COLS
#define COLS 128
#endif
constexpr int kDim = HEAD_DIM, kCols = COLS, kStages = 2;
constexpr int kConsumers = HEAD_DIM == 64 ? 3 : 2, kRows = 64 * kConsumers, kThreads = 128 * (kConsumers + 1);
constexpr int kFew = HEAD_DIM == 64 ? 32 : 24, kMany = HEAD_DIM == 64 ? 160 : 240;  // registers of each role
static_assert(128 * (kFew + kConsumers * kMany) <= 65536, "a multiprocessor has 65536 registers");
constexpr u32 kBoxBytes = kCols * 128, kTileBytes = kCols * kDim * 2, kQueryBytes = kRows * kDim * 2;
constexpr int kScores = kCols / 2, kOutputs = kDim / 2;  // accumulator registers of a thread

struct Shared {  // addresses
  u32 q, k, v, q_full, k_full, k_empty, v_full, v_empty;
};
DEVICE Shared layout() {
  Shared s;
  s.q = shared_address();
  s.k = s.q + kQueryBytes;
  s.v = s.k + kStages * kTileBytes;
  s.q_full = s.v + kStages * kTileBytes;
  s.k_full = s.q_full + 8;
  s.k_empty = s.k_full + 8 * kStages;
  s.v_full = s.k_empty + 8 * kStages;
  s.v_empty = s.v_full + 8 * kStages;
  return s;
}

// Tile n of rows, in boxes of 64 channels; `bytes` in all.
DEVICE void ask(u32 to, const TensorMap* map, u32 full, u32 box, u32 bytes, int row, int head, int batch) {
  barrier_expect(full, bytes);
  UNROLL
  for (int c = 0; c < kDim / 64; c++) copy_box(to + c * box, map, full, 64 * c, row, head, batch);
}

DEVICE void produce(const Shared& m, const TensorMap* q, const TensorMap* k, const TensorMap* v, int tiles, int i0, int h,
                    int group, int b) {
  ask(m.q, q, m.q_full, kRows * 128, kQueryBytes, i0, h, b);
  for (int n = 0; n < tiles; n++) {  // from the last tile to the first: the masked ones come first
    const int stage = n % kStages, turn = n / kStages & 1, j0 = (tiles - 1 - n) * kCols;
    if (BUG != 41) barrier_wait(m.k_empty + 8 * stage, turn ^ 1);
    ask(m.k + stage * kTileBytes, k, m.k_full + 8 * stage, kBoxBytes, SEEDED(42, kTileBytes, kTileBytes / 2), j0, group,
        b);
    if (BUG != 43) barrier_wait(m.v_empty + 8 * stage, turn ^ 1);
    ask(m.v + stage * kTileBytes, v, m.v_full + 8 * stage, kBoxBytes, kTileBytes, j0, group, b);
  }
}

// tanh by one exponential: absolute error near 1e-7, which softcap multiplies.
DEVICE float tanh_exp2(float x) { return 1.f - 2.f * reciprocal_approx(1.f + exp2_approx(2 * kLog2e * x)); }

struct Rows {  // rows g and g + 8 of a warp's 16: maximum before scaling, share of the sum, last rescaling
  float m[2], l[2], shrink[2];
};

// s becomes exp(s - m) under the new maximum; the output is rescaled later, when its product is done.
DEVICE void absorb(Rows& rows, float (&s)[kScores], float factor) {
  UNROLL
  for (int r = 0; r < 2; r++) {
    float m = rows.m[r];
    UNROLL
    for (int j = 0; j < kCols / 8; j++) m = fmaxf(m, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    m = fmaxf(m, shuffle_xor(m, 1));
    m = fmaxf(m, shuffle_xor(m, 2));
    const float base = SEEDED(44, m == NEG_INF, false) ? 0.f : m * factor;
    rows.shrink[r] = exp2_approx(rows.m[r] * factor - base);
    rows.m[r] = m;
    float sum = 0;
    UNROLL
    for (int j = 0; j < kCols / 8; j++)
      UNROLL
      for (int n = 4 * j + 2 * r; n < 4 * j + 2 * r + 2; n++) {
        s[n] = exp2_approx(s[n] * factor - base);
        sum += s[n];
      }
    rows.l[r] = SEEDED(45, rows.l[r] * rows.shrink[r], rows.l[r]) + sum;
  }
}

DEVICE void hide(float (&s)[kScores], const Segment& seg, int row, int j0) {
  UNROLL
  for (int n = 0; n < kScores; n++) {
    const int i = row + 8 * (n >> 1 & 1), j = j0 + n / 4 * 8 + 2 * (thread() % 4) + (n & 1);
    if (j >= SEEDED(46, seg.S, 1 << 30) || j > i + seg.high) s[n] = NEG_INF;
  }
}

DEVICE void consume(const Attention& p, const Shared& m, const Segment& seg, int tiles, int i0, int h, int b) {
  const int w = thread() / 128 - 1, warp = thread() % 128 / 32, lane = thread() % 32;
  const int rows0 = i0 + 64 * w, row = rows0 + 16 * warp + lane / 4;
  const bool capped = p.softcap > 0;
  const float to_cap = capped ? p.scale / p.softcap : 0.f, factor = kLog2e * (capped ? p.softcap : p.scale);
  float out[kOutputs], s[kScores];
  u32 weights[kCols / 16][4];
  Rows rows = {{NEG_INF, NEG_INF}, {0, 0}, {1, 1}};
  UNROLL
  for (int n = 0; n < kOutputs; n++) out[n] = 0;

  // The products read shared memory behind the program's back: a stage is free when its group is done.
  auto scores = [&](int n) {
    const int stage = n % kStages;
    if (BUG != 47) barrier_wait(m.k_full + 8 * stage, n / kStages & 1);
    if (BUG != 48) wgmma_fence();
    UNROLL
    for (int k = 0; k < kDim / 16; k++) {
      const u32 inside = k % 4 * SEEDED(49, 32, 16);  // 16 channels further within a swizzled row
      rows_times_rows_async<kCols>(s, descriptor(m.q + k / 4 * kRows * 128 + w * 64 * 128 + inside, 16, 1024),
                                   descriptor(m.k + stage * kTileBytes + k / 4 * kBoxBytes + inside, 16, 1024),
                                   SEEDED(50, k > 0, 1));
    }
    wgmma_commit();
  };
  auto outputs = [&](int n) {
    const int stage = n % kStages;
    if (BUG != 51) barrier_wait(m.v_full + 8 * stage, n / kStages & 1);
    wgmma_fence();
    UNROLL
    for (int k = 0; k < kCols / 16; k++)
      weights_times_rows_async<kDim>(
          out, weights[k], descriptor(m.v + SEEDED(52, stage, 0) * kTileBytes + k * 2048, SEEDED(53, kBoxBytes, 128), 1024));
    wgmma_commit();
  };
  auto release = [&](u32 empty, int n) {
    if (lane == 0) barrier_arrive(empty + 8 * (n % kStages));
  };
  auto soften = [&](int n) {
    const int j0 = (tiles - 1 - n) * kCols;
    if (capped) {
      UNROLL
      for (int x = 0; x < kScores; x++) s[x] = tanh_exp2(s[x] * to_cap);
    }
    if (!tile_is_full(seg, SEEDED(54, rows0, rows0 + 64), 64, j0, kCols)) hide(s, seg, row, j0);
    absorb(rows, s, factor);
  };
  auto pack = [&] {  // two neighbouring accumulators are one operand
    UNROLL
    for (int k = 0; k < kCols / 16; k++)
      UNROLL
      for (int x = 0; x < 4; x++) weights[k][x] = pack2(s[8 * k + 2 * x], s[8 * k + 2 * x + 1]);
  };
  auto my_turn = [&] { named_sync(1 + w, 256); };
  auto next_turn = [&] { named_arrive(1 + (w + 1) % kConsumers, 256); };

  barrier_wait(m.q_full, 0);
  if (w == 0 && BUG != 55) named_arrive(1, 256);  // the first turn is the first consumer's
  my_turn();
  scores(0);
  next_turn();
  wgmma_wait<0>();
  settled(s);
  release(m.k_empty, 0);
  soften(0);
  pack();
  for (int n = 1; n < tiles; n++) {
    my_turn();
    scores(n);
    outputs(n - 1);
    next_turn();
    if (BUG != 56) wgmma_wait<1>();  // the scores are here, the outputs on their way
    settled(s);
    release(m.k_empty, n);
    soften(n);
    wgmma_wait<0>();
    settled(out);
    release(m.v_empty, n - 1);
    UNROLL
    for (int x = 0; x < kOutputs; x++) out[x] *= SEEDED(57, rows.shrink[x >> 1 & 1], 1.f);
    pack();
  }
  if (w == 0) my_turn();  // takes back the turn that the last consumer passed on
  outputs(tiles - 1);
  wgmma_wait<0>();
  settled(out);

  scalar* o = head_of(p.o, seg.batch, h);
  float* lse = p.lse + lse_at(p, seg, h);
  UNROLL
  for (int r = 0; r < 2; r++) {
    float l = rows.l[r];
    l += shuffle_xor(l, 1);
    l += shuffle_xor(l, 2);
    const int i = row + 8 * r;
    const float inverse = l == 0 ? 0.f : 1.f / l;
    if (i >= SEEDED(58, seg.T, seg.T + 1)) continue;
    UNROLL
    for (int j = 0; j < kDim / 8; j++)
      *(u32*)(o + i * p.o.row + 8 * j + 2 * (lane % 4)) =
          pack2(out[4 * j + 2 * r] * inverse, out[4 * j + 2 * r + 1] * inverse);
    if (lane % 4 == 0)
      lse[i] = l == 0 ? NEG_INF : (rows.m[r] * factor + log2_approx(l)) * SEEDED(59, kLn2, 1.f);
  }
}

// A block whose rows see nothing at all.
DEVICE void leave_empty(const Attention& p, const Segment& seg, int i0, int h) {
  scalar* o = head_of(p.o, seg.batch, h);
  for (int x = thread(); x < kRows * kDim; x += kThreads) {
    const int i = i0 + x / kDim;
    if (i >= seg.T) break;
    o[i * p.o.row + x % kDim] = 0;
    if (x % kDim == 0) p.lse[lse_at(p, seg, h) + i] = NEG_INF;
  }
}

KERNEL void BOUNDS(kThreads, 1) attention_wgmma(const GRID_CONSTANT TensorMap q, const GRID_CONSTANT TensorMap k,
                                                const GRID_CONSTANT TensorMap v, const Attention p) {
  const int h = block_y(), b = block_z(), i0 = block_x() * kRows, group = SEEDED(60, key_head(p, h), h % p.G);
  const Segment seg = segment(p, b);
  const Shared m = layout();
  if (m.q & 1023) trap();  // a swizzled tile elsewhere is misread, without a word
  const int tiles = (most(columns_seen(seg, i0, kRows).last, 0) + kCols - 1) / kCols;
  if (tiles == 0) return leave_empty(p, seg, i0, h);

  if (thread() == 0) {
    barrier_init(m.q_full, 1);
    for (int s = 0; s < kStages; s++) {
      barrier_init(m.k_full + 8 * s, 1);
      barrier_init(m.v_full + 8 * s, 1);
      barrier_init(m.k_empty + 8 * s, 4 * kConsumers);  // a lane of every consuming warp
      barrier_init(m.v_empty + 8 * s, 4 * kConsumers);
    }
    barrier_init_fence();
  }
  sync_block();
  if (thread() < 128) {
    registers_down<kFew>();
    if (thread() == 0) produce(m, &q, &k, &v, tiles, i0, h, group, b);
  } else {
    registers_up<kMany>();
    consume(p, m, seg, tiles, i0, h, b);
  }
}
