"""The rows of ref/rl/DIVERGENCES.md that say `run`: each library's own code beside the named option here.

    python -m venv libs; libs/bin/pip install torch trl==1.16.0 scipy array-api-compat omegaconf peft tensordict ray
    orjson libs/bin/pip install --no-deps verl==0.9.1 openrlhf==0.11.2 torchtune==0.6.1
    PYTHONPATH=. libs/bin/python -m tests.deep.divergences

Prints one line a row: the library's number, ours, the distance of values and gradients; exit 1 if one is above 1e-6.
Third parties that a library's module names and this run does not need (flash-attn, torchao, ..) are stood in for.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from unittest import mock

import numpy as np

from autodiff import value_and_grad

STAND_INS = ("flash_attn", "torchao", "deepspeed", "vllm", "transformer_engine", "megatron", "liger_kernel", "hydra",
    "codetiming", "pylatexenc", "sentencepiece", "tiktoken", "blobfile", "torchdata")
LIMIT = 1e-6


class _Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of third parties that are not there, made of mocks."""

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if top in STAND_INS else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda key: (_
            for _ in ()).throw(AttributeError(key)) if key.startswith("__") else mock.MagicMock()
        return module

    def exec_module(self, module):
        module.__path__ = []


def batch():
    """Ragged responses under three policies, advantages of responses, one row without a token in `hole`."""
    g = np.random.default_rng(0)
    lp = -np.abs(g.standard_normal((4, 6)))
    old, ref = (lp + 0.4 * g.standard_normal((4, 6)) for _ in range(2))
    mask = np.arange(6) < np.array([6, 2, 4, 1])[:, None]
    return lp, old, ref, g.standard_normal((4, 1)), mask


LP, OLD, REF, A, MASK = batch()
HOLE = MASK & (np.arange(4) != 2)[:, None]
PROMPTS = np.array([0, 0, 1, 1])
REWARDS = np.array([1.0, 0.0, 0.25, 0.75])
VALUES = np.random.default_rng(1).standard_normal((3, 4, 6))
ROWS = []


def row(key):
    def register(make):
        ROWS.append((key, make))
        return make

    return register


def both(theirs, ours, at=LP):
    """((value, gradient) of the library's function of a torch tensor, of ours of an array)."""
    import torch

    x = torch.tensor(at, requires_grad=True)
    value = theirs(x)
    value.sum().backward()
    gradient = torch.zeros_like(x) if x.grad is None else x.grad
    found, own = value_and_grad(lambda a: (lambda y: y.sum() if y.ndim else y)(ours(a)))(at)
    return (float(value.sum().detach()), gradient.numpy()), (float(found), np.asarray(own))


def plain(theirs, ours):
    return (float(np.sum(theirs)), np.asarray(theirs)), (float(np.sum(ours)), np.asarray(ours))


def t(x):
    import torch

    return torch.tensor(x)


# TRL -------------------------------------------------------------------------------------------------


def trl_grpo(loss_type="grpo", mask=MASK, beta=0.0, **options):
    """GRPOTrainer._compute_loss under a stand-in trainer that knows the log-probabilities."""
    import torch
    from trl.trainer.grpo_trainer import GRPOTrainer

    args = types.SimpleNamespace(delta=options.get("delta"), use_bias_correction_kl=options.get("weighted", False),
        steps_per_generation=1)
    metrics = {"train": mock.MagicMock(), "eval": mock.MagicMock()}
    trainer = types.SimpleNamespace(
        top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level=options.get("level", "token"), beta=beta, args=args,
        loss_type=loss_type, epsilon_low=options.get("low", 0.2), epsilon_high=options.get("high", 0.2), use_vllm=False,
        vllm_importance_sampling_correction=False, model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=9, _entropy_bonus_enabled=False, aux_loss_enabled=False, _metrics=metrics,
        accelerator=types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
    )  # fmt: skip

    def loss(x):
        entropies = torch.zeros_like(x).detach()
        trainer._get_per_token_logps_and_entropies = lambda *a, **k: (x, entropies, None)
        ids = torch.zeros(x.shape, dtype=torch.long)
        inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
            "completion_mask": t(mask).long(), "advantages": t(A[:, 0]),
                  "old_per_token_logps": t(OLD), "ref_per_token_logps": t(REF),
                  "num_items_in_batch": t(mask).sum()}  # fmt: skip
        return GRPOTrainer._compute_loss(trainer, None, inputs)

    return loss


def grpo(name, **options):
    module = importlib.import_module(f"ref.rl.{name}")
    return lambda x: getattr(module, name)(x, OLD, A, MASK, **options)


for _type, _name, _options in (
    ("grpo", "grpo_loss", {}), ("bnpo", "ppo_loss", {"reduction": "token-mean"}),
    ("dr_grpo", "dr_grpo_loss", {"length": 9}),
    ("dapo", "dapo_loss", {"eps_high": 0.2}), ("luspo", "ppo_loss", {"reduction": "seq-mean-token-sum"}),
):  # fmt: skip
    row(f"TRL loss_type={_type}")(lambda k=_type, n=_name, o=_options: both(trl_grpo(k), grpo(n, **o)))


@row("TRL k3 in the loss")
def _():
    return both(trl_grpo(beta=0.1), grpo("grpo_loss", beta=0.1, ref_log_probs=REF))


@row("TRL use_bias_correction_kl")
def _():
    return both(trl_grpo(beta=0.1, weighted=True), grpo("grpo_loss", beta=0.1, ref_log_probs=REF, kl_weighted=True))


@row("TRL delta")
def _():
    return both(trl_grpo("bnpo", delta=1.3), grpo("ppo_loss", dual_clip=1.3, reduction="token-mean"))


@row("TRL cispo, epsilon_high is the bound")
def _():
    return both(trl_grpo("cispo", high=1.3), grpo("cispo_loss", eps_high=0.3))


@row("TRL importance_sampling_level=sequence")
def _():
    return both(trl_grpo(level="sequence", low=0.2, high=0.3), grpo("gspo_loss", eps_low=0.2, eps_high=0.3))


@row("TRL rows without tokens are counted")
def _():
    from ref.rl.grpo_loss import grpo_loss

    return both(trl_grpo(mask=HOLE), lambda x: grpo_loss(x, OLD, A, HOLE, empty="count"))


PAIR = LP.reshape(2, 2, 6)
PAIR_MASK = MASK.reshape(2, 2, 6) | (np.arange(6) == 1)


def trl_dpo(loss_type, smoothing=0.0):
    import torch
    from trl.trainer.dpo_trainer import DPOTrainer

    order = [0, 2, 1, 3]  # TRL's batch: all chosen, then all rejected
    mask = PAIR_MASK.reshape(4, 6)[order]
    first = torch.cat([torch.zeros(4, 1, dtype=torch.long), t(mask).long()], 1)
    ref = t(np.where(mask, REF[order], 0))
    trainer = mock.MagicMock()
    trainer.configure_mock(
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=[loss_type], loss_weights=[1.0], beta=0.1,
        label_smoothing=smoothing, use_weighting=False, model=types.SimpleNamespace(training=True),
    )  # fmt: skip
    trainer.accelerator.gather_for_metrics.side_effect = lambda x: x
    trainer.accelerator.gather.side_effect = lambda x: x

    def loss(x):
        kept = torch.where(t(mask), x.reshape(4, 6)[order], 0.0)
        zeros = torch.zeros_like(kept)
        out = types.SimpleNamespace(log_probs=kept, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
        sums = ref.sum(1)
        inputs = {"completion_mask": first, "input_ids": first, "attention_mask": first, "ref_chosen_logps": sums[:2],
            "ref_rejected_logps": sums[2:]}
        with mock.patch.object(torch.Tensor, "item", lambda s: 0.0):
            return DPOTrainer._compute_loss(trainer, lambda **_: out, inputs, False)

    return loss


def pairs(name, **options):
    module = importlib.import_module(f"ref.rl.{name}")
    return lambda x: getattr(module, name)(x.reshape(2, 2, 6), REF.reshape(2, 2, 6), PAIR_MASK, **options)


row("TRL sigmoid, sums")(lambda: both(trl_dpo("sigmoid"), pairs("dpo_loss", beta=0.1)))
row("TRL sigmoid_norm, means")(lambda: both(trl_dpo("sigmoid_norm"), pairs("dpo_loss", beta=0.1, of="mean")))
row("TRL ipo, means")(lambda: both(trl_dpo("ipo"), pairs("ipo_loss", tau=0.1, of="mean")))
row("TRL robust")(lambda: both(trl_dpo("robust", 0.2), pairs("robust_dpo_loss", beta=0.1, eps=0.2)))


# verl ------------------------------------------------------------------------------------------------


def verl():
    return importlib.import_module("verl.trainer.ppo.core_algos")


for _mode, _options in (
    ("token-mean", {"reduction": "token-mean"}), ("seq-mean-token-sum", {"reduction": "seq-mean-token-sum"}),
    ("seq-mean-token-mean", {"reduction": "seq-mean-token-mean"}),
    ("seq-mean-token-sum-norm", {"reduction": "constant", "length": 6}),
):  # fmt: skip

    @row(f"verl agg_loss {_mode}")
    def _(mode=_mode, options=_options):
        from ref.rl.reduce import reduce

        return both(lambda x: verl().agg_loss(x, t(MASK).double(), mode), lambda x: reduce(x, MASK, **options))


@row("verl rows without tokens are dropped")
def _():
    from ref.rl.reduce import reduce

    how = "seq-mean-token-mean"
    return both(lambda x: verl().agg_loss(x, t(HOLE).double(), how),
        lambda x: reduce(x, HOLE, reduction=how, empty="drop"))


def verl_policy(kind, how):
    """compute_policy_loss_<kind> of verl's core_algos, whose config here is a stand-in with clips .2, .28."""

    class Config(types.SimpleNamespace):
        def get(self, key, default=None):
            return getattr(self, key, default)

    config = Config(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28, global_batch_info={})

    def loss(x):
        core = verl()
        with mock.patch.object(core, "ActorConfig", object):
            policy = getattr(core, f"compute_policy_loss_{kind}")
            return policy(t(OLD), x, t(A * np.ones_like(LP)), t(MASK).double(), how, config)[0]

    return loss


row("verl vanilla, dual clip 3 unless said")(lambda: both(
    verl_policy("vanilla", "token-mean"), grpo("ppo_loss", eps_high=0.28, dual_clip=3.0, reduction="token-mean")
))  # fmt: skip
row("verl gspo")(lambda: both(
    verl_policy("gspo", "seq-mean-token-mean"), grpo("gspo_loss", eps_low=0.2, eps_high=0.28)
))  # fmt: skip
row("verl cispo, 1 + clip_ratio_high, a lower bound too")(lambda: both(
    verl_policy("cispo", "token-mean"), grpo("cispo_loss", eps_low=0.2, eps_high=0.28)
))  # fmt: skip

KINDS = {
    "k1": {"kind": "k1"}, "k2": {"kind": "k2"}, "k3": {"kind": "k3", "clamp": 20.0, "clamp_value": 10.0},
    "abs": {"kind": "abs"}, "k1+": {"kind": "k1", "gradient": "k2"}, "k3+": {"kind": "k3", "gradient": "k2"},
}  # fmt: skip
for _kind, _options in KINDS.items():

    @row(f"verl kl_penalty {_kind}")
    def _(kind=_kind, options=_options):
        from ref.rl.kl_estimator import kl_estimator

        return both(lambda x: verl().kl_penalty(x, t(REF), kind), lambda x: kl_estimator(x, REF, **options))


@row("verl grpo advantages, ddof 1, eps 1e-6")
def _():
    from ref.rl.grpo_advantages import grpo_advantages

    scores = np.where(np.arange(6) == 0, REWARDS[:, None], 0.0)
    theirs = verl().compute_grpo_outcome_advantage(t(scores), t(np.ones((4, 6))), PROMPTS)[0][:, 0].numpy()
    return plain(theirs, grpo_advantages(REWARDS, PROMPTS))


@row("verl rloo advantages")
def _():
    from ref.rl.rloo_advantages import rloo_advantages

    scores = np.where(np.arange(6) == 0, REWARDS[:, None], 0.0)
    theirs = verl().compute_rloo_outcome_advantage(t(scores), t(np.ones((4, 6))), PROMPTS)[0][:, 0].numpy()
    return plain(theirs, rloo_advantages(REWARDS, PROMPTS))


@row("verl masked_whiten, ddof 1, eps under the root")
def _():
    from ref.rl.whiten import whiten

    library = importlib.import_module("verl.utils.torch_functional")
    return plain(library.masked_whiten(t(LP), t(MASK).double()).numpy() * MASK, whiten(LP, MASK))


@row("verl value loss")
def _():
    from ref.rl.value_loss import value_loss

    return both(lambda x: verl().compute_value_loss(x, t(VALUES[0]), t(VALUES[1]), t(MASK).double(), 0.3)[0],
        lambda x: value_loss(x, VALUES[1], VALUES[0], MASK, clip=0.3), VALUES[2])


# OpenRLHF --------------------------------------------------------------------------------------------


def openrlhf():
    return importlib.import_module("openrlhf.models.loss")


row("OpenRLHF token_level_loss")(lambda: both(
    lambda x: openrlhf().PolicyLoss(0.2, 0.28)(x, t(OLD), t(A), t(MASK).double())[0],
    grpo("ppo_loss", eps_high=0.28, reduction="token-mean")))  # fmt: skip
row("OpenRLHF sample-level loss")(lambda: both(
    lambda x: openrlhf().PolicyLoss(0.2, 0.2, token_level_loss=False)(x, t(OLD), t(A), t(MASK).double())[0],
    grpo("grpo_loss")))  # fmt: skip
row("OpenRLHF dual_clip")(lambda: both(
    lambda x: openrlhf().PolicyLoss(0.2, 0.2, dual_clip=1.3)(x, t(OLD), t(A), t(MASK).double())[0],
    grpo("ppo_loss", dual_clip=1.3, reduction="token-mean")))  # fmt: skip
row("OpenRLHF gspo")(lambda: both(
    lambda x: openrlhf().PolicyLoss(0.2, 0.3, policy_loss_type="gspo")(x, t(OLD), t(A), t(MASK).double())[0],
    grpo("gspo_loss", eps_low=0.2, eps_high=0.3)))  # fmt: skip


@row("OpenRLHF value loss")
def _():
    from ref.rl.value_loss import value_loss

    return both(lambda x: openrlhf().ValueLoss(0.3)(x, t(VALUES[1]), t(VALUES[0]), t(MASK).double()),
        lambda x: value_loss(x, VALUES[1], VALUES[0], MASK, clip=0.3), VALUES[2])


def summed(x):
    import torch

    kept = torch.where(t(PAIR_MASK), x.reshape(2, 2, 6), 0.0).sum(-1)
    ref = t(np.where(PAIR_MASK, REF.reshape(2, 2, 6), 0).sum(-1))
    return kept[:, 0], kept[:, 1], ref[:, 0], ref[:, 1]


row("OpenRLHF DPO label_smoothing is cDPO")(lambda: both(
    lambda x: openrlhf().DPOLoss(0.1, 0.2)(*summed(x))[0], pairs("cdpo_loss", beta=0.1, eps=0.2)))  # fmt: skip
row("OpenRLHF ipo, sums")(lambda: both(lambda x: openrlhf().DPOLoss(0.1, ipo=True)(*summed(x))[0],
    pairs("ipo_loss", tau=0.1)))


@row("OpenRLHF k3, value clamped")
def _():
    from ref.rl.kl_estimator import kl_estimator

    kl = importlib.import_module("openrlhf.models.utils").compute_approx_kl
    return both(lambda x: kl(x, t(REF), kl_estimator="k3"), lambda x: kl_estimator(x, REF, kind="k3", clamp_value=10.0))


@row("OpenRLHF pairwise loss with a margin")
def _():
    from ref.rl.bradley_terry_loss import bradley_terry_loss

    m = np.array([0.5, 0.0, 1.0, 2.0])
    return both(lambda x: openrlhf().PairWiseLoss()(x, t(REWARDS), t(m)),
        lambda x: bradley_terry_loss(x, REWARDS, margin=m), REWARDS[::-1].copy())


# torchtune -------------------------------------------------------------------------------------------


@row("torchtune DPO label_smoothing is cDPO")
def _():
    loss = importlib.import_module("torchtune.rlhf.loss.dpo").DPOLoss(0.1, 0.2)
    return both(lambda x: loss(*summed(x))[0].mean(), pairs("cdpo_loss", beta=0.1, eps=0.2))


@row("torchtune whiten: shift_mean=True keeps the mean")
def _():
    from ref.rl.whiten import whiten

    theirs = importlib.import_module("torchtune.rlhf").whiten(t(LP), t(MASK), shift_mean=True).numpy() * MASK
    return plain(theirs, whiten(LP, MASK, shift_mean=False))


@row("torchtune PPO value loss and policy loss")
def _():
    from ref.rl.ppo_loss import ppo_loss
    from ref.rl.value_loss import value_loss

    loss = importlib.import_module("torchtune.rlhf.loss.ppo").PPOLoss(0.2, 0.3, 0.5)
    v, old_v, r = (t(x) for x in VALUES)
    theirs = lambda x: loss(t(OLD), x, t(A * np.ones_like(LP)), old_v, v, r, t(MASK), t(MASK))[0]  # noqa: E731
    critic = value_loss(VALUES[0], VALUES[1], VALUES[2], MASK, clip=0.3)
    return both(theirs, lambda x: ppo_loss(x, OLD, A, MASK, reduction="token-mean") + 0.5 * critic)


def main():
    import trl.trainer.dpo_trainer
    import trl.trainer.grpo_trainer  # noqa: F401  # before the stand-ins: it asks which third parties are there

    sys.meta_path.append(_Missing())
    worst, failed = 0.0, 0
    for key, make in ROWS:
        try:
            (value, gradient), (own, own_gradient) = make()
        except Exception as error:
            failed += 1
            print(f"{key:50} FAILED {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        off = max(abs(value - own), float(np.max(np.abs(gradient - own_gradient))))
        worst = max(worst, off)
        print(f"{key:50} {value:12.7f} {own:12.7f} {off:9.1e}  {'same' if off <= LIMIT else 'DIFFERENT'}", flush=True)
    print(f"{len(ROWS)} rows, {failed} failed, largest distance {worst:.1e}")
    return 0 if worst <= LIMIT and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
