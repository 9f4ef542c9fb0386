"""What the policy losses, preferences and rewards say of bad input: the function, what arrived, what was needed."""

import importlib

import numpy as np
import pytest

from autodiff import forms
from ref.rl.running_moments import Moments

LP = np.full((2, 3), -1.0)
M = np.ones((2, 3), bool)
A = np.ones((2, 1))
W = np.ones(2)
HOLE = np.array([[True, True, True], [False, False, False]])
PAIR, PAIR_M = np.full((2, 2, 3), -1.0), np.ones((2, 2, 3), bool)
R, P = np.array([1.0, 0.0, 1.0, 0.0]), np.array([5, 5, 7, 7])
NAN = np.array([1.0, np.nan, 1.0, 0.0])
IDS = np.array([0, 0, 1, 1, 1])
ZERO = Moments(np.zeros(()), np.zeros(()), np.zeros(()))
TM = {"reduction": "token-mean"}
T32 = LP.astype(np.float32)
STEP = (np.zeros((2, 2)), np.array([[0, 1]]), np.array([2]), np.array([[False, True]]), np.zeros((1, 2)), np.ones(1))

# function, error, arguments, options, what it says
CASES = [
    ("reduce", ValueError, (LP, M), {"reduction": "mean"},
    "reduce: reduction='mean'; needed one of token-mean, seq-mean"),
    ("reduce", ValueError, (LP, ~M), TM, "no position of the mask is kept in 2 rows; needs one, or count="),
    ("reduce", ValueError, (LP, HOLE), {"reduction": "seq-mean-token-mean"}, "row 1 of the mask keeps no position"),
    ("reduce", ValueError, (LP, M), {"reduction": "constant"}, "reduction 'constant' with length=None"),
    ("reduce", ValueError, (LP, M), {**TM, "count": 0}, "count=0; needed at least 1"),
    ("reduce", ValueError, (LP, M), {**TM, "empty": "skip"}, "empty='skip'; needed one of refuse, drop, count"),
    ("reduce", ValueError, (LP, M[:, :2]), TM, r"reduce: mask has T=2, loss has T=3"),
    ("reduce", TypeError, (LP, LP), TM, "mask has dtype float64; .* must be bool"),
    ("token_log_probs", ValueError, (np.zeros((1, 2, 3)), np.zeros((1, 2), int), M[:1, :2]), {},
    "first token of a row"),
    ("token_log_probs", ValueError, (np.zeros((1, 2, 3)), np.array([[0, 5]]), np.array([[False, True]])), {},
    "a target is 5, logits have V=3"),
    ("token_log_probs", ValueError, (np.zeros((2, 3)), np.zeros(2, int), np.array([False, True])),
    {"segments": np.array([0, 1])},
     "first token of a segment"),
    ("token_log_probs", ValueError, (np.zeros((2, 3)), np.zeros(2, int), np.zeros(2, bool)), {"temperature": 0.0},
    "temperature=0.0; needed > 0"),
    ("sequence_log_prob", ValueError, (LP, HOLE), {"of": "mean"}, "a row of the mask keeps no token; a mean needs one"),
    ("sequence_log_prob", ValueError, (LP, M), {"of": "average"}, "of='average'; needed one of sum, mean"),
    ("importance_ratio", ValueError, (LP, LP, M), {"level": "row"},
    "level='row'; needed one of token, sequence, product"),
    ("importance_ratio", TypeError, (LP, T32, M), {"level": "token"},
    "old_log_probs has dtype float32, log_probs has float64"),
    ("kl_estimator", ValueError, (LP, LP), {"kind": "k4"}, "kind='k4'; needed one of k1, k2, k3, abs"),
    ("kl_estimator", ValueError, (LP, LP), {"kind": "k1", "gradient": "k3"}, "gradient='k3'; needed None or 'k2'"),
    ("kl_estimator", ValueError, (LP, LP), {"kind": "k1", "clamp": 0.0}, "clamp=0.0; needed > 0"),
    ("kl_loss", ValueError, (LP, LP, M, np.ones(3)), {}, r"kl_loss: weights has B=3, log_probs has B=2"),
    ("clipped_surrogate", ValueError, (LP, LP, np.ones((2, 2)), M, W), {}, "advantages has t=2; needed T=3 or 1"),
    ("clipped_surrogate", ValueError, (LP, LP, A, M, W), {"eps_low": 1.5},
    "eps_low=1.5, eps_high=0.2; needed 0 <= eps_low <= 1"),
    ("clipped_surrogate", ValueError, (LP, LP, A, M, W), {"dual_clip": 1.1},
    "dual_clip=1.1; needed more than 1 \\+ eps_high"),
    ("clipped_surrogate", ValueError, (LP, LP, A, HOLE, W), {"level": "sequence"}, "a row of the mask keeps no token"),
    ("clipped_surrogate", ValueError, (LP, LP, A, M, W), {"level": "row"}, "level='row'; needed 'token' or 'sequence'"),
    ("ppo_loss", ValueError, (LP, LP, A, M), {**TM, "entropy_coef": 0.1}, "entropy_coef=0.1 and no entropy"),
    ("ppo_loss", ValueError, (LP, LP, A, HOLE), {"reduction": "seq-mean-token-sum"},
    "ppo_loss: row 1 of the mask keeps no position"),
    ("grpo_loss", ValueError, (LP, LP, A, M), {"beta": 0.1}, "beta=0.1, ref_log_probs missing"),
    ("grpo_loss", ValueError, (LP, LP, A, ~M), {}, "grpo_loss: no position of the mask is kept"),
    ("dr_grpo_loss", ValueError, (LP, LP, A, M), {"length": 0}, "'constant' with length=0"),
    ("dapo_loss", ValueError, (LP, LP, A, ~M), {}, "dapo_loss: no position of the mask is kept"),
    ("gspo_loss", ValueError, (LP, LP, A, HOLE), {}, "gspo_loss: row 1 of the mask keeps no position"),
    ("cispo_loss", ValueError, (LP, LP, A, M), {"eps_high": -0.1}, "eps_high=-0.1"),
    ("score_loss", ValueError, (LP, A, M, W), {"low": 2.0, "high": 1.0}, "low=2.0, high=1.0; needed 0 <= low <= high"),
    ("reinforce_loss", ValueError, (LP, A, np.ones((2, 3)), M), {}, r"baselines has t=3, returns has t=1"),
    ("vapo_loss", ValueError, (LP, LP, A, M, np.ones(2, bool)), {"count": 3}, "count=3, count_correct=None"),
    ("whiten", ValueError, (LP, HOLE), {"scope": "row"}, "a row keeps fewer than ddof \\+ 1 = 2 places"),
    ("whiten", ValueError, (LP, M), {"scope": "group"}, "scope='group'"),
    ("whiten", ValueError, (LP, M), {"moments": ZERO, "scope": "row"}, "moments given with scope='row'"),
    ("running_moments", ValueError, (LP, M, Moments(np.array(-1.0), np.zeros(()), np.zeros(()))), {},
    "state has count -1.0"),
    ("entropy", ValueError, (np.zeros((2, 0)),), {}, "V=0 classes"),
    ("value_loss", ValueError, (LP, LP, LP, M), {"clip": 0.0}, "clip=0.0; needed > 0"),
    ("kl_reward", ValueError, (np.ones(2), LP, LP, HOLE), {"beta": 0.1}, "kl_reward: row 1 of the mask keeps no token"),
    ("kl_reward", ValueError, (np.array([1.0, np.inf]), LP, LP, M), {"beta": 0.1},
    "scores hold a number that is not finite"),
    ("kl_reward", ValueError, (np.ones(2), LP, LP, M), {"beta": -1.0}, "beta=-1.0; needed >= 0"),
    ("rollout_weights", ValueError, (LP, LP, M), {"low": 0.5}, "mode='truncate', low=0.5"),
    ("rollout_weights", ValueError, (LP, LP, M), {"mode": "mask", "low": 3.0}, "low=3.0, high=2.0"),
    ("turn_mask", ValueError, (np.zeros((1, 3), int), np.array([[2, 2]]), np.array([[True, False]])), {},
    "in T=3 tokens; needed lengths >= 0 that fit"),
    ("grpo_advantages", ValueError, (R[:3], np.array([1, 2, 3])), {},
    "prompt 1 has 1 rewards, another has 1; needed groups of one size, at least 2"),
    ("grpo_advantages", ValueError, (np.ones(5), IDS), {}, "prompt 0 has 2 rewards, another has 3"),
    ("grpo_advantages", ValueError, (NAN, P), {}, "4 rewards, one of them not finite"),
    ("grpo_advantages", ValueError, (R[:0], P[:0]), {}, "0 rewards, none"),
    ("grpo_advantages", ValueError, (R, P), {"scale": "std"}, "scale='std'"),
    ("rloo_advantages", ValueError, (np.ones(5), IDS), {}, "rloo_advantages: prompt 0 has 2 rewards, another has 3"),
    ("dynamic_sampling", ValueError, (NAN, P), {}, "dynamic_sampling: 4 rewards, one of them not finite"),
    ("process_advantages", ValueError,
    (np.ones((1, 1)), np.ones((1, 1), bool), np.zeros((1, 1), int), np.array([4]), M[:1]), {},
     "the group of prompt 4 has fewer than two steps"),
    ("process_advantages", ValueError,
    (np.ones((1, 2)), np.ones((1, 2), bool), np.array([[0, 9]]), np.array([4]), M[:1]), {}, "outside 0..2"),
    ("overlong_penalty", ValueError, (np.array([1]),), {"longest": 3, "cache": 4}, "longest=3, cache=4"),
    ("vapo_lambdas", ValueError, (np.array([0]),), {}, "needed alpha > 0 and lengths >= 1"),
    ("preference_margin", ValueError, (PAIR[:, :1], PAIR_M[:, :1]), {}, "log_probs has 2=1"),
    ("preference_margin", ValueError, (PAIR, PAIR_M), {"of": "max"}, "of='max'; needed one of sum, mean"),
    ("dpo_loss", ValueError, (PAIR, PAIR, PAIR_M), {"beta": 0.0}, "beta=0.0; needed > 0"),
    ("dpo_loss", ValueError, (PAIR[:0], PAIR[:0], PAIR_M[:0]), {}, "P=0 pairs, count=None; needed a pair"),
    ("dpo_loss", TypeError, (PAIR, None, PAIR_M), {}, "ref_log_probs is None"),
    ("cdpo_loss", ValueError, (PAIR, PAIR, PAIR_M), {"eps": 0.5}, "eps=0.5; needed 0 <= eps < 1/2"),
    ("robust_dpo_loss", ValueError, (PAIR, PAIR, PAIR_M), {"eps": -0.1}, "robust_dpo_loss: eps=-0.1"),
    ("ipo_loss", ValueError, (PAIR, PAIR, PAIR_M), {"tau": 0.0}, "tau=0.0; needed > 0"),
    ("simpo_loss", ValueError, (PAIR, PAIR_M), {"gamma": -1.0}, "gamma=-1.0"),
    ("orpo_loss", ValueError, (PAIR * 0, PAIR_M), {}, "average log-probability >= 0"),
    ("orpo_loss", ValueError, (PAIR, PAIR_M), {"nll": "token", "count": 3}, "nll='token', count=3"),
    ("kto_loss", ValueError, (LP, LP, M, np.ones(2, bool)), {}, "needed z0, or mismatched"),
    ("kto_loss", ValueError, (LP, LP, M, np.ones(2, bool), LP, LP, M), {"z0": 1.0}, "needed z0, or mismatched"),
    ("kto_loss", ValueError, (LP, LP, M, np.ones(2, bool)), {"z0": -1.0}, "z0=-1.0"),
    ("mirror_descent", ValueError, (R, R), {"tau": 0.0}, "tau=0.0"),
    ("kimi_loss", ValueError, (LP, LP, M, np.ones(2), np.array([1, 2])), {"tau": 0.1},
    "kimi_loss: prompt 1 has 1 rewards"),
    ("kimi_loss", ValueError, (LP, LP, M, np.ones(2), np.array([1, 1])), {"tau": 0.1, "baseline": "max"},
    "baseline='max'"),
    ("length_reward", ValueError, (np.array([-1]), np.array([True]), np.array([0])), {}, "needed all >= 0"),
    ("priority_sampling", ValueError, (np.ones(3),), {}, "no success rate lies below 1"),
    ("priority_sampling", ValueError, (np.array([1.5]),), {}, "lies outside \\[0, 1\\]"),
    ("partial_rollouts", ValueError, (np.zeros((1, 1)), lambda t, i: np.zeros(2)), {"budget": 1, "end": 0},
    "add up to 2.0; needed"),
    ("partial_rollouts", ValueError, (np.zeros((1, 1)), None), {"budget": 0, "end": 0}, "budget=0"),
    ("long2short", ValueError, (np.ones((1, 2), int), np.ones((1, 2), bool)), {"ratio": 1.0}, "ratio=1.0"),
    ("bradley_terry_loss", ValueError, (R, R), {"margin": -R}, "a margin is negative"),
    ("plackett_luce_loss", ValueError, (np.zeros((2, 0)),), {}, "K=0"),
    ("plackett_luce_mle", ValueError, (np.array([[0, 1], [2, 3], [3, 2]]), np.ones(3), np.zeros(4)), {},
     r"the maximum is not finite: items \[.*\] are never ranked below any of the other"),
    ("plackett_luce_mle", ValueError, (np.array([[0, 1], [1, 2], [0, 2]]), np.ones(3), np.zeros(3)), {},
    r"items \[0\] are never ranked below"),
    ("plackett_luce_mle", ValueError, (np.array([[0, 1], [1, 0]]), np.ones(2), np.zeros(3)), {},
    r"items \[.*\] are never ranked below"),
    ("plackett_luce_mle", ValueError, (np.array([[0, 0]]), np.ones(1), np.zeros(2)), {},
    r"ranking 0 is \[0, 0\]; it names an item twice"),
    ("plackett_luce_mle", ValueError, (np.array([[0, 2]]), np.ones(1), np.zeros(2)), {}, r"items 0..2; needed 0..1"),
    ("best_of_n", ValueError, (np.array([0.5, 0.6]), np.zeros(2)), {"n": 2}, "of sum 1.1; needed >= 0 and sum 1"),
    ("best_of_n", ValueError, (np.array([0.5, 0.5]), np.zeros(2)), {"n": 0}, "n=0; needed at least 1"),
    ("rejection_sampling", ValueError, (np.array([1.0, 0.0]), np.array([False, True])), {},
    "no accepted response has a probability"),
    ("pass_at_k", ValueError, (np.array([1]),), {"n": 2, "k": 3}, "n=2, k=3"),
    ("llama2_reward", ValueError, (np.ones(2), W / 2, np.zeros(2, bool), W), {}, "all scores in \\(0, 1\\)"),
    ("format_reward", TypeError, ("<think>",), {}, "texts is a str; needed a list or an array"),
    ("format_reward", ValueError, (["a"],), {"outside": "drop"}, "outside='drop'"),
    ("accuracy_reward", ValueError, (["a"], []), {}, "1 texts and 0 answers"),
    ("language_consistency", ValueError, (["a"],), {"script": "french"}, "script='french'"),
    ("r1_reward", TypeError, ([1], ["1"]), {}, "r1_reward: texts is a list; needed a list or an array"),
    ("ppo_max_reward", ValueError, (np.ones(2), LP, LP, M, ZERO), {"mode": "scale", "clip": None, "beta": 0.1},
    "2 scores seen, of no deviation"),
    ("ppo_max_loss", ValueError, (LP, LP, LP, LP, LP, LP, M, np.zeros(())),
     {"advantage_norm": True, "advantage_clip": None, "policy_clip": 0.2, "value_clip": 0.2, "value_coef": 1.0,
     "pretrain_coef": 0.0, "count": 9},
     "advantage_norm with a count"),
    ("policy_step", ValueError, STEP, {**TM, "plan": (((0, 0),),)},
    r"plan names rows \[0, 0\]; needed each of 0..0 once"),
    ("policy_step", ValueError, (*STEP[:2], np.array([1]), *STEP[3:]), TM, "the mask counts padding"),
]  # fmt: skip


@pytest.mark.parametrize("form", ["fused", "composite"])
@pytest.mark.parametrize("name, error, args, options, said", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_bad_input_is_named(name, error, args, options, said, form):
    function = getattr(importlib.import_module(f"ref.rl.{name}"), name)
    with forms(form), pytest.raises(error, match=said):
        function(*args, **options)


def test_a_disconnected_comparison_has_a_maximum_under_a_prior():
    from ref.rl.plackett_luce_mle import plackett_luce_mle

    r = plackett_luce_mle(np.array([[0, 1], [2, 3]]), np.ones(2), np.zeros(4), ridge=0.1)
    assert np.isfinite(r).all() and r[0] > r[1] and r[2] > r[3]


def test_every_loss_and_reward_refuses_something():
    from ref.spec import all_specs

    named = {c[0] for c in CASES}
    assert {s.id.partition(".")[2] for s in all_specs() if s.family == "rl"} <= named
