// Level 0's tools: a block owns 32 rows (4 a warp) and streams tiles of 32 others past them.
//
// A lane is one streamed row while scores are made, and one channel (of every 32nd) while they are used.
// Channels come in chunks, so that any head dimension fits: 64 at a time through a dot product, 128
// accumulated in registers; more than 128 are other blocks' work.
#pragma once
#include "attention.cuh"

constexpr int kWarps = 8, kPerWarp = 4, kOwn = kWarps * kPerWarp, kTile = 32;
constexpr int kDepth = 64, kWidth = 128, kLanes = kWidth / 32;

struct Tiles {
  float own[kOwn][kDepth + 1];  // one float of padding: lanes read down a column
  float other[kTile][kDepth + 1];
  float wide[kTile][kWidth];
};

// tile[r][c] = row(r)[first + c], zero where row(r) is null or the channel is past the last.
template <class Row>
DEVICE void fetch(float* tile, int stride, int width, Row row, int first, int channels) {
  for (int x = thread(); x < kTile * width; x += kWarps * 32) {
    const int r = x / width, c = x % width;
    const scalar* from = row(r);
    tile[r * stride + c] = from && first + c < channels ? load(from + first + c) : 0.f;
  }
}

// dot[i] = own row (4 warp + i) . streamed row (lane)
template <class Own, class Other>
DEVICE void dots(float (&dot)[kPerWarp], Tiles& tiles, Own own, Other other, int channels) {
  const int warp = thread() / 32, lane = thread() % 32;
  for (int i = 0; i < kPerWarp; i++) dot[i] = 0;
  for (int first = 0; first < channels; first += kDepth) {
    sync_block();  // nobody still reads what is written next
    fetch(&tiles.own[0][0], kDepth + 1, kDepth, own, first, channels);
    fetch(&tiles.other[0][0], kDepth + 1, kDepth, other, first, channels);
    sync_block();
    for (int c = 0; c < least(kDepth, channels - first); c++) {
      const float x = tiles.other[lane][c];
      UNROLL
      for (int i = 0; i < kPerWarp; i++) dot[i] += tiles.own[warp * kPerWarp + i][c] * x;
    }
  }
}

// sum[i][n] += weight of (own row, streamed row j) * channel first + 32 n + lane of row j, over all j.
// A weight of zero takes its row out by selection: NaN in a row that is not seen stays there.
template <class Other>
DEVICE void accumulate(float (&sum)[kPerWarp][kLanes], const float (&weight)[kPerWarp], Tiles& tiles, Other other,
                       int first, int channels) {
  const int lane = thread() % 32;
  sync_block();
  fetch(&tiles.wide[0][0], kWidth, kWidth, other, first, channels);
  sync_block();
  for (int j = 0; j < kTile; j++) {
    UNROLL
    for (int i = 0; i < kPerWarp; i++) {
      const float w = shuffle_from(weight[i], j);
      UNROLL
      for (int n = 0; n < kLanes; n++) sum[i][n] += w == 0 ? 0.f : w * tiles.wide[j][32 * n + lane];
    }
  }
}

// The running softmax of 4 rows: maximum m, this lane's share of the sum l, unnormalised output.
struct Softmax {
  float m[kPerWarp], l[kPerWarp], out[kPerWarp][kLanes];
};

DEVICE void start(Softmax& s) {
  for (int i = 0; i < kPerWarp; i++) {
    s.m[i] = NEG_INF;
    s.l[i] = 0;
    for (int n = 0; n < kLanes; n++) s.out[i][n] = 0;
  }
}

// x[i], a logit or -inf, becomes exp(x - m) under the new maximum; what was summed before is rescaled.
DEVICE void absorb(Softmax& s, float (&x)[kPerWarp]) {
  UNROLL
  for (int i = 0; i < kPerWarp; i++) {
    const float m = fmaxf(s.m[i], warp_max(x[i]));
    const float base = m == NEG_INF ? 0.f : m;  // (-inf) - (-inf) is NaN
    const float shrink = exp2f((s.m[i] - base) * kLog2e);
    x[i] = exp2f((x[i] - base) * kLog2e);
    s.m[i] = m;
    s.l[i] = s.l[i] * shrink + x[i];
    UNROLL
    for (int n = 0; n < kLanes; n++) s.out[i][n] *= shrink;
  }
}

// (1 / l, log-sum-exp) of row i; a row that saw nothing gives (0, -inf).
struct Finish {
  float inverse, lse;
};
DEVICE Finish finish(const Softmax& s, int i) {
  const float l = warp_sum(s.l[i]);
  if (l == 0) return {0.f, NEG_INF};
  return {1.f / l, s.m[i] + logf(l)};
}

// The logit of (i, j) from its dot product, and the slope of the softcap there; -inf where not seen.
DEVICE float logit(const Attention& p, const Segment& s, int b, int h, int i, int j, float dot, float& slope) {
  slope = 1;
  if (!in_band(s, i, j)) return NEG_INF;
  if (p.mask && !p.mask[b * p.mask_batch + h * p.mask_head + i * p.mask_row + j * p.mask_col]) return NEG_INF;
  float x = dot * p.scale;
  if (p.softcap > 0) {
    const float t = tanhf(x / p.softcap);
    slope = 1 - t * t;
    x = p.softcap * t;
  }
  if (p.bias) x += p.bias[b * p.bias_batch + h * p.bias_head + i * p.bias_row + j * p.bias_col];
  if (p.slopes) x -= p.slopes[h] * fabsf((float)(i + s.S - s.T - j));
  return x;
}

// Threefry-2x32-20 (Salmon et al. 2011), first word: the rule of nn.keep_mask.
DEVICE u32 threefry(u32 k0, u32 k1, u32 x0, u32 x1) {
  const u32 key[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  const int turn[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  x0 += k0;
  x1 += k1;
  UNROLL
  for (int n = 0; n < 20; n++) {
    const int r = turn[n % 8];
    x0 += x1;
    x1 = ((x1 << r) | (x1 >> (32 - r))) ^ x0;
    if (n % 4 == 3) {
      x0 += key[(n / 4 + 1) % 3];
      x1 += key[(n / 4 + 2) % 3] + n / 4 + 1;
    }
  }
  return x0;
}

// What dropout multiplies the weight of (i, j) by: its counter is the index in [B H T S].
DEVICE float kept(const Attention& p, const Segment& s, int b, int h, int i, int j) {
  if (p.drop_below == 0) return 1.f;
  const u64 position = (((u64)b * p.H + h) * s.T + i) * s.S + j;
  const u32 word = threefry(p.seed_high, p.seed_low, (u32)(position >> 32), (u32)position);
  return (i64)word >= p.drop_below ? p.keep_scale : 0.f;
}
