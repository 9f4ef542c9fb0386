"""Policy and preference losses with gradients, (64, 2048) log-probabilities, beside the same expressions in torch.

Ours by the public functions and the engine; torch eager, as trainers write it: bool masks, a value, a backward.
"""

import numpy as np

from bench.common import Case, Engine, Ratio, main

B, T, LOOPS = 64, 2048, 20
CEILING = {1: 0.5}


def arrays(dtype):
    """Log-probabilities under three policies, advantages of responses and of tokens, a mask of ragged responses."""
    g = np.random.default_rng(0)
    lp = -np.abs(g.standard_normal((B, T)))
    old, ref = (lp + 0.2 * g.standard_normal((B, T)) for _ in range(2))
    a, a_t = g.standard_normal((B, 1)), g.standard_normal((B, T))
    mask = np.arange(T) < g.integers(T // 2, T + 1, B)[:, None]
    return [x.astype(dtype) for x in (lp, old, ref, a, a_t)] + [mask]


def ours(name, dtype):
    from autodiff import value_and_grad
    from backends.threads import threads as thread_count

    lp, old, ref, a, a_t, mask = arrays(dtype)
    loss = value_and_grad(OURS[name](old, ref, a, a_t, mask))

    def run(_=None):
        with thread_count(1):
            for _ in range(LOOPS):
                found = loss(lp)
        return found

    return Engine({"step": run}, lambda: dict(zip(("loss", "gradient"), run(), strict=True)))


def _ppo(old, ref, a, a_t, mask):
    from ref.rl.ppo_loss import ppo_loss

    return lambda lp: ppo_loss(lp, old, a_t, mask, reduction="token-mean")


def _ppo_dual(old, ref, a, a_t, mask):
    from ref.rl.ppo_loss import ppo_loss

    return lambda lp: ppo_loss(lp, old, a_t, mask, dual_clip=3.0, reduction="token-mean")


def _grpo(old, ref, a, a_t, mask):
    from ref.rl.grpo_loss import grpo_loss

    return lambda lp: grpo_loss(lp, old, a, mask, ref_log_probs=ref, beta=0.04)


def _dr_grpo(old, ref, a, a_t, mask):
    from ref.rl.dr_grpo_loss import dr_grpo_loss

    return lambda lp: dr_grpo_loss(lp, old, a, mask, length=T)


def _dapo(old, ref, a, a_t, mask):
    from ref.rl.dapo_loss import dapo_loss

    return lambda lp: dapo_loss(lp, old, a, mask)


def _gspo(old, ref, a, a_t, mask):
    from ref.rl.gspo_loss import gspo_loss

    return lambda lp: gspo_loss(lp, old, a, mask, eps_low=0.2, eps_high=0.28)


def _cispo(old, ref, a, a_t, mask):
    from ref.rl.cispo_loss import cispo_loss

    return lambda lp: cispo_loss(lp, old, a, mask, eps_high=0.28)


def _reinforce(old, ref, a, a_t, mask):
    from ref.rl.reinforce_loss import reinforce_loss

    zero = np.zeros_like(a)
    return lambda lp: reinforce_loss(lp, a, zero, mask)


def _pairs(x):
    return x.reshape(B // 2, 2, T)


def _dpo(old, ref, a, a_t, mask):
    from ref.rl.dpo_loss import dpo_loss

    ref, mask = _pairs(ref), _pairs(mask)
    return lambda lp: dpo_loss(_pairs(lp), ref, mask)


def _ipo(old, ref, a, a_t, mask):
    from ref.rl.ipo_loss import ipo_loss

    ref, mask = _pairs(ref), _pairs(mask)
    return lambda lp: ipo_loss(_pairs(lp), ref, mask, of="mean")


def _simpo(old, ref, a, a_t, mask):
    from ref.rl.simpo_loss import simpo_loss

    mask = _pairs(mask)
    return lambda lp: simpo_loss(_pairs(lp), mask)


OURS = {"PPO": _ppo, "PPO, dual clip": _ppo_dual, "GRPO": _grpo, "Dr. GRPO": _dr_grpo, "DAPO": _dapo, "GSPO": _gspo,
        "CISPO": _cispo, "REINFORCE": _reinforce, "DPO": _dpo, "IPO": _ipo, "SimPO": _simpo}  # fmt: skip


def torch_eager(name, dtype):
    import torch

    torch.set_num_threads(1)
    lp, *rest = (torch.from_numpy(x) for x in arrays(dtype))
    lp.requires_grad_()
    loss = TORCH[name]

    def run(_=None):
        for _ in range(LOOPS):
            lp.grad = None
            found = loss(torch, lp, *rest)
            found.backward()
        return found

    def values():
        found = run()
        return {"loss": found.detach().numpy(), "gradient": lp.grad.numpy().copy()}

    return Engine({"step": run}, values)


def _clip(torch, ratio, a, low, high):
    return -torch.min(ratio * a, torch.clamp(ratio, 1 - low, 1 + high) * a)


def _token_mean(x, mask):
    return (x * mask).sum() / mask.sum()


def _sequence_mean(x, mask):
    return ((x * mask).sum(-1) / mask.sum(-1)).mean()


def _torch_ppo(torch, lp, old, ref, a, a_t, mask):
    return _token_mean(_clip(torch, torch.exp(lp - old), a_t, 0.2, 0.2), mask)


def _torch_ppo_dual(torch, lp, old, ref, a, a_t, mask):
    loss = _clip(torch, torch.exp(lp - old), a_t, 0.2, 0.2)
    return _token_mean(torch.where(a_t < 0, torch.min(loss, -3.0 * a_t), loss), mask)


def _torch_grpo(torch, lp, old, ref, a, a_t, mask):
    kl = torch.exp(ref - lp) - (ref - lp) - 1
    return _sequence_mean(_clip(torch, torch.exp(lp - old), a, 0.2, 0.2) + 0.04 * kl, mask)


def _torch_dr_grpo(torch, lp, old, ref, a, a_t, mask):
    return (_clip(torch, torch.exp(lp - old), a, 0.2, 0.2) * mask).sum() / (B * T)


def _torch_dapo(torch, lp, old, ref, a, a_t, mask):
    return _token_mean(_clip(torch, torch.exp(lp - old), a, 0.2, 0.28), mask)


def _torch_gspo(torch, lp, old, ref, a, a_t, mask):
    ratio = torch.exp(((lp - old) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True))
    return _clip(torch, ratio, a, 0.2, 0.28).mean()


def _torch_cispo(torch, lp, old, ref, a, a_t, mask):
    ratio = torch.clamp(torch.exp(lp - old), max=1.28).detach()
    return _token_mean(-ratio * a * lp, mask)


def _torch_reinforce(torch, lp, old, ref, a, a_t, mask):
    return -((a * lp) * mask).sum(-1).mean()


def _torch_dpo(torch, lp, old, ref, a, a_t, mask):
    D = _pairs((lp - ref) * mask).sum(-1)
    return -torch.nn.functional.logsigmoid(0.1 * (D[:, 0] - D[:, 1])).mean()


def _torch_ipo(torch, lp, old, ref, a, a_t, mask):
    D = _pairs((lp - ref) * mask).sum(-1) / _pairs(mask).sum(-1)
    return ((D[:, 0] - D[:, 1] - 1 / (2 * 0.1)) ** 2).mean()


def _torch_simpo(torch, lp, old, ref, a, a_t, mask):
    avg = _pairs(lp * mask).sum(-1) / _pairs(mask).sum(-1)
    return -torch.nn.functional.logsigmoid(2.0 * (avg[:, 0] - avg[:, 1]) - 1.0).mean()


TORCH = {"PPO": _torch_ppo, "PPO, dual clip": _torch_ppo_dual, "GRPO": _torch_grpo, "Dr. GRPO": _torch_dr_grpo,
         "DAPO": _torch_dapo, "GSPO": _torch_gspo, "CISPO": _torch_cispo, "REINFORCE": _torch_reinforce,
         "DPO": _torch_dpo, "IPO": _torch_ipo, "SimPO": _torch_simpo}  # fmt: skip


def _case(name, dtype):
    kind = np.dtype(dtype).name
    return Case(
        f"{name} {kind}",
        {"torch": lambda _: torch_eager(name, dtype), "ours": lambda _: ours(name, dtype)},
        (Ratio(f"{name}, {kind}", ("ours", "step"), ("torch", "step"), CEILING),),
        rounds=15, loops=LOOPS, tolerance=1e-4 if dtype is np.float32 else 1e-10,
    )  # fmt: skip


CASES = [_case(name, dtype) for name in OURS for dtype in (np.float32, np.float64)]

if __name__ == "__main__":
    main("bench.policy_loss", CASES)
