"""The language model learns, resumes to the same bits after SIGKILL, and says what it refuses."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from autodiff import value_and_grad
from backends.threads import threads
from ref.demo import bpe, checkpoint_file
from ref.demo.train import TEMPERATURES, Plan, Run, initial, train
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.models.llama import Config, llama, parameter_count
from ref.optim.adamw import adamw, start
from ref.optim.clip_by_global_norm import clip_by_global_norm
from ref.optim.warmup_cosine import warmup_cosine

ROOT = Path(__file__).resolve().parents[2]
TEXT = b"the quick brown fox jumps over the lazy dog. " * 20
MERGES = bpe.learn(TEXT, 264)
TINY = Config(vocabulary=264, channels=16, layers=2, heads=2, groups=1, hidden=24, tied=True)


def tiny(text=TEXT, config=TINY, **changes):
    plan = {"steps": 12, "batch": 3, "context": 12, "lr": 1e-2, "save_every": 3, **changes}
    return Run(text, MERGES, config, Plan(**plan))


def advanced(run, steps=3):
    """The losses and the parameters after some steps."""
    return [run.advance() for _ in range(steps)], run.flat.copy()


def same(a, b):
    return a[0] == b[0] and np.array_equal(a[1], b[1])


def test_a_step_is_the_parts_put_together():
    """One shard, no dropout: clipped gradient of the mean loss, AdamW without decay on norms and embeddings."""
    run = tiny(shards=1, max_norm=0.5, weight_decay=0.3, warmup=0.5)
    before = {name: a.copy() for name, a in run.params.items()}
    starts = np.random.default_rng()
    starts.bit_generator.state = run.rng.bit_generator.state
    window = run.tokens[starts.integers(0, len(run.tokens) - 12, 3)[:, None] + np.arange(13)]

    def loss(params):
        return softmax_cross_entropy(llama(params, window[:, :-1], TINY), window[:, 1:]).mean()

    value, grads = value_and_grad(loss)(before)
    clipped, norm = clip_by_global_norm(list(grads.values()), 0.5)
    assert norm > 0.5
    bits = run.advance()
    assert bits == pytest.approx(float(value) / np.log(2) * 36 / run.bytes_of[window[:, 1:]].sum(), rel=1e-6)
    lr = warmup_cosine(1, peak=1e-2, warmup=6, total=12, final=2e-4)
    for g, (name, p) in zip(clipped, before.items(), strict=True):
        decay = 0.3 if p.ndim == 2 and "embed" not in name else 0.0
        wanted, _ = adamw(p, g, start(p), lr=lr, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=decay)
        np.testing.assert_allclose(run.params[name], wanted, rtol=1e-5, atol=1e-7, err_msg=name)


def test_shards_are_the_whole_batch():
    """Every shard's loss is a part of one mean: other roundings, nothing more."""
    whole, cut = (advanced(tiny(shards=k), 1)[0][0] for k in (1, 3))
    assert whole == pytest.approx(cut, rel=1e-6)
    runs = [tiny(shards=k) for k in (1, 3)]
    for run in runs:
        run.advance()
    np.testing.assert_allclose(runs[0].gradient, runs[1].gradient, rtol=0, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.25}, {"dropout": 0.25, "bpe_dropout": 0.2, "epoch": 2}])
def test_the_bits_do_not_depend_on_threads_or_recomputation(options):
    found = []
    for count, checkpointed in ((1, False), (3, False), (1, True)):
        with threads(count):
            found.append(advanced(tiny(shards=3, checkpointed=checkpointed, **options)))
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_each_source_of_noise_changes_the_run_and_the_seed_names_it():
    plain = advanced(tiny())
    for change in ({"seed": 1}, {"dropout": 0.25}, {"bpe_dropout": 0.2}):
        changed = advanced(tiny(**change))
        assert not same(changed, plain) and same(changed, advanced(tiny(**change)))


def test_an_epoch_later_the_text_has_other_tokens():
    run = tiny(bpe_dropout=0.3, epoch=2)
    seen = []
    for _ in range(5):
        run.advance()
        seen.append(run.tokens)
        assert bpe.decode(MERGES, run.tokens) == TEXT
    same_epoch = [np.array_equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert same_epoch == [True, False, True, False]


def test_it_learns_a_text_that_repeats():
    run = tiny(steps=120, lr=2e-2)
    before = run.bits_per_byte(TEXT[:200])
    for _ in range(120):
        run.advance()
    assert before > 3 > 1 > np.mean(run.curve[-10:])
    assert run.bits_per_byte(TEXT[:200]) < 1
    assert run.sample(b"the", 8, seed=1) == run.sample(b"the", 8, seed=1)
    assert run.sample(b"the quick", 1).startswith(b"the quick")


@pytest.mark.parametrize("length", [1, 5, 12, 13, 14, 18, 19, 40, 97])
def test_the_code_length_scores_every_token_once(length):
    """A model that gives every token 1 / V codes n tokens in n log2 V bits, whatever the windows."""
    run = tiny()
    for a in run.params.values():
        a[...] = 0
    text = TEXT[:length]
    wanted = len(bpe.encode(MERGES, text)) * np.log2(264) / length
    assert run.bits_per_byte(text) == pytest.approx(wanted, rel=1e-6)


def test_the_code_length_is_that_of_whole_windows():
    """Within one window it is the loss of the text after a line feed."""
    run, text = tiny(), TEXT[:14]
    row = np.concatenate((bpe.encode(MERGES, b"\n"), bpe.encode(MERGES, text)))
    assert len(row) <= 13
    nats = softmax_cross_entropy(llama(run.params, row[:-1], TINY), row[1:]).sum()
    assert run.bits_per_byte(text) == pytest.approx(float(nats) / np.log(2) / 14, rel=1e-6)


def test_the_temperature_divides_the_logits():
    """They are linear in the weight of the last norm."""
    run, text = tiny(), TEXT[:60]
    run.params["model.norm.weight"][...] = 8.0
    run.temperature = 1.25
    warm = run.bits_per_byte(text)
    run.temperature = 1.0
    run.params["model.norm.weight"][...] = 6.4
    assert warm == pytest.approx(run.bits_per_byte(text), rel=1e-5)


def test_what_is_sure_and_wrong_is_cooled_and_what_is_right_is_left():
    """A fresh model made sure knows nothing: the highest temperature. One that learned the text: the lowest."""
    run = tiny(steps=120, lr=2e-2)
    run.params["model.norm.weight"][...] = 100.0
    before = run.bits_per_byte(TEXT[:200])
    assert run.calibrate(TEXT[:200]) == run.temperature == TEMPERATURES[-1]
    assert run.bits_per_byte(TEXT[:200]) < before
    run = tiny(steps=120, lr=2e-2)
    for _ in range(120):
        run.advance()
    assert run.calibrate(TEXT[:200]) == 1.0


def test_fresh_parameters_have_the_named_spread():
    config = TINY._replace(channels=64, hidden=256)
    values = initial(config, np.random.default_rng(0))
    assert sum(a.size for a in values.values()) == parameter_count(config)
    assert all(a.dtype == np.float32 for a in values.values())
    for name, std in (("model.embed_tokens.weight", 0.02), ("model.layers.0.mlp.up_proj.weight", 1 / 8),
                      ("model.layers.1.mlp.down_proj.weight", 1 / 32)):  # fmt: skip
        assert values[name].std() == pytest.approx(std, rel=0.05)
    assert all((a == 1).all() for a in values.values() if a.ndim == 1)


CHILD = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    from test_train import tiny, train

    folder, kill = sys.argv[1], sys.argv[2]
    run = tiny(shards=2, dropout=0.25, bpe_dropout=0.2, epoch=5)
    run.resume(folder)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if kill == "step":
        update = run._update
        run._update = lambda: die() if run.step == 7 else update()
    if kill in ("write", "rename"):
        name = "write" if kill == "write" else "replace"
        real = getattr(os, name)
        def call(*args):
            if run.step == 9 and kill == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            return die() if run.step == 9 else real(*args)
        setattr(os, name, call)
    train(run, folder)
"""


def child(folder, kill):
    code = textwrap.dedent(CHILD).format(here=str(Path(__file__).parent))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, str(folder), kill], env=env, timeout=100).returncode


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    assert child(folder, "never") == 0
    return checkpoint_file.latest(folder).read_bytes()


@pytest.mark.parametrize("kill", ["step", "write", "rename"])
def test_killed_and_resumed_in_a_fresh_process_it_ends_in_the_same_bits(tmp_path, unbroken, kill):
    assert child(tmp_path, kill) == -signal.SIGKILL
    assert checkpoint_file.load(checkpoint_file.latest(tmp_path)).state["step"] == 6
    assert child(tmp_path, "never") == 0
    assert checkpoint_file.latest(tmp_path).read_bytes() == unbroken


def test_another_plan_model_or_text_is_not_resumed(tmp_path):
    run = tiny()
    train(run, tmp_path)
    with pytest.raises(ValueError, match=r"has plan .*'lr': 0.01.*this run has .*'lr': 0.5"):
        tiny(lr=0.5).resume(tmp_path)
    with pytest.raises(ValueError, match=r"has config .*'heads': 2.*this run has .*'heads': 4"):
        tiny(config=TINY._replace(heads=4)).resume(tmp_path)
    other = tiny()
    other.merges = other.merges[::-1].copy()
    with pytest.raises(ValueError, match="has other merges"):
        other.resume(tmp_path)
    assert not tiny().resume(tmp_path / "empty")
    again = tiny()
    assert again.resume(tmp_path) and again.step == 12 and again.curve == run.curve


def test_a_run_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"text has \d tokens; more than 12 are needed"):
        tiny(text=TEXT[:8])
    with pytest.raises(ValueError, match="config has vocabulary=300, the merges make 264"):
        tiny(config=TINY._replace(vocabulary=300))


def test_a_gradient_that_is_not_finite_is_named_and_nothing_is_written():
    run = tiny()
    run.params["model.layers.1.mlp.gate_proj.weight"][...] = np.nan
    before = run.flat.copy()
    with pytest.raises(FloatingPointError, match="step 0: the gradient of .* is not finite"):
        run.advance()
    assert np.array_equal(run.flat, before, equal_nan=True) and run.step == 0
