// Attention of the last T tokens over a paged cache: the keys are split among blocks, then merged.
//
//     paged_decode        grid (splits, blocks of 32 rows x chunks of e, B G), 256 threads:
//                         o_part, lse_part of one part of the keys
//     paged_decode_merge  grid (T / 8, H, B), 256 threads, a warp a row:
//                         lse = log sum_n exp(lse_n),  o = sum_n exp(lse_n - lse) o_n
//
// The keys of batch entry b are rows 0 .. length[b] - 1 of the pages table[b, 0], table[b, 1], ...; its
// queries are the last T of these positions, so row t sees columns 0 .. length - T + t.
#include "attention_simt.cuh"

struct PagedDecode {
  View q, o;        // [B H T d], [B H T e]
  View k, v;        // [pages G page d], [pages G page e]
  int* table;       // [B, table_width]
  int* length;      // [B]
  float* o_part;    // [splits, B H T, e]
  float* lse_part;  // [splits, B H T]
  float* lse;       // [B H T]
  int H, G, T, d, e;
  int page, table_width, splits, batches;
  float scale, softcap;
};

KERNEL void BOUNDS(256, 1) paged_decode(const PagedDecode p) {
  Tiles& tiles = *(Tiles*)shared_base();
  const int warp = thread() / 32, lane = thread() % 32, split = block_x();
  const int chunks = (p.e + kWidth - 1) / kWidth, first = block_y() % chunks * kWidth;
  const int b = block_z() / p.G, group = block_z() % p.G, heads = p.H / p.G;
  // Rows of a group are stacked: row x is query head group * heads + x / T, token x % T.
  const int rows = heads * p.T, x0 = block_y() / chunks * kOwn, x_warp = x0 + warp * kPerWarp;
  const int length = p.length[b];
  auto head = [&](int x) { return group * heads + x / p.T; };
  auto query = [&](int r) -> const scalar* {
    return x0 + r < rows ? head_of(p.q, b, head(x0 + r)) + (x0 + r) % p.T * p.q.row : nullptr;
  };
  auto cached = [&](const View& pages, int j) -> const scalar* {
    if (j >= length) return nullptr;
    return head_of(pages, p.table[(i64)b * p.table_width + j / p.page], group) + j % p.page * pages.row;
  };

  Softmax state;
  start(state);
  const int tiles_in_all = (length + kTile - 1) / kTile, share = (tiles_in_all + p.splits - 1) / p.splits;
  const int end = least(length, (split + 1) * share * kTile);
  for (int j0 = split * share * kTile; j0 < end; j0 += kTile) {
    float s[kPerWarp];
    dots(s, tiles, query, [&](int r) { return cached(p.k, j0 + r); }, p.d);
    UNROLL
    for (int i = 0; i < kPerWarp; i++) {
      const int x = x_warp + i, j = j0 + lane;
      const bool seen = x < rows && j < length && j <= length - p.T + x % p.T;
      float y = s[i] * p.scale;
      if (p.softcap > 0) y = p.softcap * tanhf(y / p.softcap);
      s[i] = seen ? y : NEG_INF;
    }
    absorb(state, s);
    accumulate(state.out, s, tiles, [&](int r) { return cached(p.v, j0 + r); }, first, p.e);
  }

  for (int i = 0; i < kPerWarp; i++) {
    const Finish last = finish(state, i);
    const int x = x_warp + i;
    if (x >= rows) continue;
    const i64 at = ((i64)split * p.batches + b) * p.H * p.T + head(x) * p.T + x % p.T;
    for (int n = 0; n < kLanes; n++) {
      const int c = first + 32 * n + lane;
      if (c < p.e) p.o_part[at * p.e + c] = state.out[i][n] * last.inverse;
    }
    if (first == 0 && lane == 0) p.lse_part[at] = last.lse;
  }
}

KERNEL void BOUNDS(256, 1) paged_decode_merge(const PagedDecode p) {
  const int lane = thread() % 32, t = block_x() * kWarps + thread() / 32, h = block_y(), b = block_z();
  if (t >= p.T) return;
  const i64 row = ((i64)b * p.H + h) * p.T + t, rows = (i64)p.batches * p.H * p.T;
  float m = NEG_INF, total = 0;
  for (int n = 0; n < p.splits; n++) m = fmaxf(m, p.lse_part[n * rows + row]);
  const float base = m == NEG_INF ? 0.f : m;
  for (int n = 0; n < p.splits; n++) total += exp2f((p.lse_part[n * rows + row] - base) * kLog2e);
  const float inverse = total == 0 ? 0.f : 1.f / total;
  for (int c = lane; c < p.e; c += 32) {
    float sum = 0;
    for (int n = 0; n < p.splits; n++) {
      const float w = exp2f((p.lse_part[n * rows + row] - base) * kLog2e) * inverse;
      sum += w == 0 ? 0.f : w * p.o_part[(n * rows + row) * p.e + c];
    }
    head_of(p.o, b, h)[t * p.o.row + c] = narrow(sum);
  }
  if (lane == 0) p.lse[row] = total == 0 ? NEG_INF : base + logf(total);
}
