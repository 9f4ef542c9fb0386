// What every attention kernel is given, and who sees whom.
//
//     s_ij = scale q_i . k_j;  s <- softcap tanh(s / softcap);  s <- s + bias_ij - slope_h |i + S - T - j|
//     s_ij = -inf where the mask or the band drops (i, j);  o_i = sum_j softmax(s_i)_j v_j
//
// q[B H T d], k[B G S d], v[B G S e], o[B H T e], lse[B H T]; head h reads key head h / (H / G). With
// cu_q and cu_k a batch entry is a segment: its rows start at cu_q[b], its keys at cu_k[b].
#pragma once
#include "common.cuh"

struct View {  // an array over (batch, head, row, channel), strides in elements, channels adjacent
  scalar* at;
  i64 batch;
  i64 head;
  i64 row;
};

struct Attention {
  View q, k, v, o;
  View g, dq, dk, dv;  // g: the cotangent of o
  float* lse;
  float* g_lse;  // the cotangent of lse, or null; laid out as lse
  float* delta;  // rowsum(g o) - g_lse, laid out as lse
  i64 lse_batch;
  i64 lse_head;
  unsigned char* mask;  // 1 keeps; or null
  i64 mask_batch;
  i64 mask_head;
  i64 mask_row;
  i64 mask_col;
  float* bias;  // or null
  i64 bias_batch;
  i64 bias_head;
  i64 bias_row;
  i64 bias_col;
  float* slopes;  // ALiBi's, one a head, or null
  int* cu_q;      // or null
  int* cu_k;
  i64 drop_below;  // keep where word >= drop_below; 0: no dropout
  int H, G, T, S, d, e;
  int low, high;     // the band: row i sees columns i + low .. i + high,
  int bottom_right;  // both moved by S - T if this is 1
  u32 seed_high, seed_low;
  float scale, softcap;  // softcap 0: none
  float keep_scale;      // 1 / (1 - rate)
};

// One batch entry: where its rows lie, how many there are, and its band.
struct Segment {
  i64 q_row, k_row;  // added to row indices
  int T, S, low, high;
  int batch;  // stride multiplier: 0 for segments of a packed array
};

DEVICE Segment segment(const Attention& p, int b) {
  Segment s{0, 0, p.T, p.S, p.low, p.high, b};
  if (p.cu_q) {
    s.q_row = p.cu_q[b];
    s.k_row = p.cu_k[b];
    s.T = p.cu_q[b + 1] - p.cu_q[b];
    s.S = p.cu_k[b + 1] - p.cu_k[b];
    s.batch = 0;
  }
  const int shift = p.bottom_right ? SEEDED(1, s.S - s.T, p.S - p.T) : 0;
  s.low += shift;
  s.high += shift;
  return s;
}

// Half-open spans, exact: what lies outside is seen by nothing, so it may hold NaN. An empty band (a causal mask
// and a window that do not meet) has empty spans.
struct Span {
  int first, last;
};
DEVICE Span columns_seen(const Segment& s, int i0, int rows) {  // by rows i0 .. i0 + rows - 1 below T
  if (s.low > s.high) return {0, 0};
  const int end = least(i0 + rows, s.T);
  return {most(0, i0 + s.low), least(s.S, end + s.high)};
}
DEVICE Span rows_seeing(const Segment& s, int j0, int cols) {  // some column of j0 .. j0 + cols - 1 below S
  if (s.low > s.high) return {0, 0};
  const int end = least(j0 + cols, s.S);
  return {most(0, j0 - s.high), least(s.T, end - s.low)};
}
DEVICE bool in_band(const Segment& s, int i, int j) {
  return i < s.T && j < s.S && j >= i + s.low && j <= i + s.high;
}
// Whether every pair of a tile is seen, so that no element needs a question.
DEVICE bool tile_is_full(const Segment& s, int i0, int rows, int j0, int cols) {
  return i0 + rows <= s.T && j0 + cols <= s.S && j0 >= i0 + rows - 1 + s.low && j0 + cols - 1 <= i0 + s.high;
}

DEVICE scalar* head_of(const View& v, int batch, int head) { return v.at + batch * v.batch + head * v.head; }
DEVICE i64 lse_at(const Attention& p, const Segment& s, int h) {
  return s.batch * p.lse_batch + h * p.lse_head + s.q_row;
}
DEVICE int key_head(const Attention& p, int h) { return h / (p.H / p.G); }
