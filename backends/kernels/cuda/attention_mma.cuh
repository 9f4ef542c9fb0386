// Level 1's tools: tiles of rows in shared memory, and the two products that attention is made of.
//
// A tile is rows of HEAD_DIM halves. Its 16-byte chunks are swizzled: chunk c of row r lies at chunk
// c ^ (r & 7), so that the eight rows that ldmatrix reads at once lie in different banks.
// A warp owns M times 16 rows. An accumulator is [M][columns / 8][4]: lane 4 g + t holds of each 8 columns
// rows g (numbers 0, 1) and g + 8 (2, 3), columns 2 t and 2 t + 1.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

constexpr int kDim = HEAD_DIM, kChunks = kDim / 8, kRowBytes = kDim * 2;

DEVICE u32 chunk_at(int row, int chunk) { return (u32)((row * kChunks + (chunk ^ (row & 7))) * 16); }

// Rows first .. first + ROWS - 1 of an array; those outside `valid` become zeros, whatever they hold.
template <int ROWS, int THREADS>
DEVICE void load_rows(u32 tile, const scalar* from, i64 stride, int first, Span valid) {
  static_assert(ROWS * kChunks % THREADS == 0, "each thread copies the same number of chunks");
  UNROLL
  for (int n = 0; n < ROWS * kChunks / THREADS; n++) {
    const int x = n * THREADS + thread(), row = x / kChunks, chunk = x % kChunks, i = first + row;
    const bool inside = i >= valid.first && i < valid.last;
    copy16(tile + chunk_at(row, chunk), from + (inside ? i * stride : 0) + chunk * 8, SEEDED(2, inside, true));
  }
}

template <int M, int N>
DEVICE void clear(float (&x)[M][N][4]) {
  UNROLL
  for (int i = 0; i < M; i++)
    UNROLL
    for (int j = 0; j < N; j++) x[i][j][0] = x[i][j][1] = x[i][j][2] = x[i][j][3] = 0.f;
}

// out[16 M x COLS] = A B^T over HEAD_DIM; A rows from row0 of tile a, B the rows of tile b.
template <int M, int COLS>
DEVICE void rows_times_rows(float (&out)[M][COLS / 8][4], u32 a, int row0, u32 b) {
  const int lane = thread() % 32;
  clear(out);
  UNROLL
  for (int k = 0; k < kDim / 16; k++) {
    u32 left[M][4];
    UNROLL
    for (int i = 0; i < M; i++) load_matrix4(left[i], a + chunk_at(row0 + 16 * i + (lane & 15), 2 * k + (lane >> 4)));
    UNROLL
    for (int j = 0; j < COLS / 16; j++) {
      u32 right[4];
      load_matrix4(right, b + chunk_at(16 * j + (lane & 7) + 8 * (lane >> 4), 2 * k + ((lane >> 3) & 1)));
      UNROLL
      for (int i = 0; i < M; i++) {
        multiply_add(out[i][2 * j], left[i], right[0], right[1]);
        multiply_add(out[i][2 * j + 1], left[i], right[2], right[3]);
      }
    }
  }
}

// out[16 M x HEAD_DIM] += X B, X an accumulator of COLS columns, B the COLS rows of tile b.
template <int M, int COLS>
DEVICE void weights_times_rows(float (&out)[M][kDim / 8][4], const float (&x)[M][COLS / 8][4], u32 b) {
  const int lane = thread() % 32;
  UNROLL
  for (int k = 0; k < COLS / 16; k++) {
    u32 left[M][4];  // two neighbouring accumulators are one operand: no data moves between lanes
    UNROLL
    for (int i = 0; i < M; i++) {
      left[i][0] = pack2(x[i][2 * k][0], x[i][2 * k][1]);
      left[i][1] = pack2(x[i][2 * k][2], x[i][2 * k][3]);
      left[i][2] = pack2(x[i][2 * k + 1][0], x[i][2 * k + 1][1]);
      left[i][3] = pack2(x[i][2 * k + 1][2], x[i][2 * k + 1][3]);
    }
    UNROLL
    for (int j = 0; j < kDim / 16; j++) {
      u32 right[4];
      load_matrix4_transposed(right, b + chunk_at(16 * k + (lane & 15), 2 * j + (lane >> 4)));
      UNROLL
      for (int i = 0; i < M; i++) {
        multiply_add(out[i][2 * j], left[i], right[0], right[1]);
        multiply_add(out[i][2 * j + 1], left[i], right[2], right[3]);
      }
    }
  }
}

DEVICE float quad_max(float x) {
  x = fmaxf(x, shuffle_xor(x, 1));
  return SEEDED(3, fmaxf(x, shuffle_xor(x, 2)), x);
}
DEVICE float quad_sum(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}

// tanh by one exponential: absolute error near 1e-7, which softcap multiplies.
DEVICE float tanh_exp2(float x) { return 1.f - 2.f * reciprocal_approx(1.f + exp2_approx(2 * kLog2e * x)); }

// 16 rows of an accumulator, scaled, to rows row0 .. of an array of `rows` rows.
DEVICE void store_rows(scalar* to, i64 stride, int row0, int rows, const float (&x)[kDim / 8][4], float low,
                       float high) {
  const int g = thread() % 32 / 4, t = thread() % 4;
  UNROLL
  for (int half = 0; half < 2; half++) {
    const int row = row0 + g + 8 * half;
    const float scale = half ? high : low;
    if (row < rows) {
      UNROLL
      for (int j = 0; j < kDim / 8; j++)
        *(u32*)(to + row * stride + 8 * j + 2 * t) = pack2(x[j][2 * half] * scale, x[j][2 * half + 1] * scale);
    }
  }
}
