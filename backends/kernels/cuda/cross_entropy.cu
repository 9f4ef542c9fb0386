// Cross entropy of a softmax, a row of logits a block: the normaliser in one pass, the gradient in a second.
//
//     lse = log sum_j exp(x_j),   loss = lse - x_t + z lse^2
//     dx_j = g (exp(x_j - lse) (1 + 2 z lse) - [j = t])
//
// A row whose target is `ignored` has loss 0 and gradient 0, whatever its logits hold.
// Grid (rows), `threads` threads, shared: two floats a warp.
#include "rows.cuh"

struct CrossEntropy {
  scalar* logits;  // [rows, V]
  i64* targets;    // [rows]
  scalar* loss;    // [rows]
  float* lse;      // [rows]
  scalar* g;       // [rows], or null: every row has `scale`
  scalar* dx;      // [rows, V]; may be the logits themselves
  i64 ignored;
  int V, threads, whole, ignores;
  float z_loss, scale;
};

// The maximum and the sum of exponentials against it, of what some threads have seen; m = -inf is nothing.
struct State {
  float m, l;
};
DEVICE State merge(State a, State b) {
  const float m = fmaxf(a.m, b.m), base = m == NEG_INF ? 0.f : m;
  return {m, a.l * exp2f((a.m - base) * kLog2e) + b.l * exp2f((b.m - base) * kLog2e)};
}

DEVICE float log_sum(const CrossEntropy& p, const scalar* x) {
  State s{NEG_INF, 0};
  float value[kPack];
  for (int c = thread() * kPack; c < p.V; c += p.threads * kPack) {
    load_pack(value, x, c, p.V, p.whole);
    float top = NEG_INF, sum = 0;
    UNROLL
    for (int i = 0; i < kPack; i++)
      if (c + i < p.V) top = fmaxf(top, value[i]);
    const float base = top == NEG_INF ? 0.f : top;
    UNROLL
    for (int i = 0; i < kPack; i++)
      if (c + i < p.V) sum += exp2f((value[i] - base) * kLog2e);
    s = merge(s, State{top, sum});
  }
  UNROLL
  for (int lane = 16; lane; lane >>= 1) s = merge(s, State{shuffle_xor(s.m, lane), shuffle_xor(s.l, lane)});
  float* scratch = (float*)shared_base();
  if (thread() % 32 == 0) {
    scratch[2 * (thread() / 32)] = s.m;
    scratch[2 * (thread() / 32) + 1] = s.l;
  }
  sync_block();
  s = State{NEG_INF, 0};
  for (int w = 0; w < p.threads / 32; w++) s = merge(s, State{scratch[2 * w], scratch[2 * w + 1]});
  return (s.m == NEG_INF ? 0.f : s.m) + logf(s.l);
}

DEVICE void write_loss(const CrossEntropy& p, const scalar* x, i64 target, bool kept, float lse) {
  if (thread() != 0) return;
  p.loss[block_x()] = narrow(kept ? lse - load(x + target) + p.z_loss * lse * lse : 0.f);
  p.lse[block_x()] = kept ? lse : 0.f;
}

DEVICE void write_gradient(const CrossEntropy& p, const scalar* x, i64 target, bool kept, float lse, float g) {
  scalar* dx = p.dx + (i64)block_x() * p.V;
  const float weight = g * (1 + 2 * p.z_loss * lse);
  float value[kPack];
  for (int c = thread() * kPack; c < p.V; c += p.threads * kPack) {
    load_pack(value, x, c, p.V, p.whole);
    UNROLL
    for (int i = 0; i < kPack; i++)
      value[i] = kept ? weight * exp2f((value[i] - lse) * kLog2e) - (c + i == target ? g : 0.f) : 0.f;
    store_pack(dx, value, c, p.V, p.whole);
  }
}

KERNEL void BOUNDS(1024, 1) cross_entropy(const CrossEntropy p) {
  const scalar* x = p.logits + (i64)block_x() * p.V;
  const i64 target = p.targets[block_x()];
  const bool kept = !p.ignores || target != p.ignored;
  write_loss(p, x, target, kept, kept ? log_sum(p, x) : 0.f);
}

KERNEL void BOUNDS(1024, 1) cross_entropy_vjp(const CrossEntropy p) {
  const scalar* x = p.logits + (i64)block_x() * p.V;
  const i64 target = p.targets[block_x()];
  const bool kept = !p.ignores || target != p.ignored;
  write_gradient(p, x, target, kept, p.lse[block_x()], p.g ? load(p.g + block_x()) : p.scale);
}

// Loss and gradient at once, where every row's cotangent is `scale`: the second pass finds the row in cache.
KERNEL void BOUNDS(1024, 1) cross_entropy_both(const CrossEntropy p) {
  const scalar* x = p.logits + (i64)block_x() * p.V;
  const i64 target = p.targets[block_x()];
  const bool kept = !p.ignores || target != p.ignored;
  const float lse = kept ? log_sum(p, x) : 0.f;
  write_loss(p, x, target, kept, lse);
  sync_block();  // the target's logit is read before it is overwritten
  write_gradient(p, x, target, kept, lse, p.scale);
}
