"""`closedform train-rl dpo | hacking | r1`: preferences, a reward model that is hacked, and a pipeline like R1's."""

from __future__ import annotations

import numpy as np

from ref.demo import charts, rl_pictures
from ref.demo.rl_screen import console, progress, table

BANDIT_ERROR = 1e-6
FALL, HELD = 0.1, 0.05  # of pass@1: without a KL term at least, with one at most


def _quietly(run):
    """`run` with one BLAS thread and pages kept: the products are small."""
    from backends.pages import keep_freed_pages
    from backends.threads import blas_threads

    keep_freed_pages()
    with blas_threads(1), progress() as bar:
        return run(bar)


def _started(bar, seed, until):
    """A network, fine-tuned as the arithmetic task's is."""
    from ref.demo import arithmetic

    line = bar.add_task(f"sft, seed {seed}", total=None)
    network, curve = arithmetic.fine_tuned(
        seed, until=until, watch=lambda step, solved: bar.update(
            line, completed=step, description=f"sft, seed {seed}: pass@1 {solved:.4f}"))  # fmt: skip
    bar.update(line, total=curve[-1][0])
    return network


# DPO and its family -------------------------------------------------------------------------------------

NAMES = ("dpo", "ipo", "cdpo", "robust_dpo", "kto", "simpo", "orpo")  # preferences.FAMILY, which takes a while to load
ONLINE = ("ppo", "grpo")  # beside the family on the frontier
CLOSED = ("dpo", "ipo", "robust_dpo", "cdpo")
SFT, MEASURED = 0.25, 4  # every fourth training prompt is measured
DPO_STEPS, POINTS = 150, 3
RL_STEPS = 120


def dpo(task, algorithm, gamma, steps, seeds, out):
    """The family's optima on a bandit, then on the arithmetic model beside the exact frontier."""
    held = _bandits()
    from ref.demo import preferences

    names = (*NAMES, *ONLINE) if algorithm == "all" else (algorithm,)
    shown = table(
        "dpo: exact KL and pass@1 after training", "", "seed", "KL(policy | start)", "pass@1",
        "the frontier's there", "held out",
    )  # fmt: skip
    for seed in range(seeds or 1):
        line, paths, rows = _quietly(lambda bar, seed=seed: _beside_the_frontier(bar, names, seed, steps))
        for label, (kl, solved), heldout in rows:
            gap = preferences.above(line, (kl, solved))
            shown.add_row(label, str(seed), f"{kl:.4f}", f"{solved:.4f}", f"{solved - gap:.4f}", f"{heldout:.4f}")
            held &= gap <= 1e-3
        picture = rl_pictures.frontier(
            out / f"dpo-{algorithm}-frontier-{seed}.png", line, paths, "KL(policy | start), nats", "exact pass@1"
        )
        console.print(f"wrote {picture}")
    console.print(shown)
    return held


def _bandits():
    from ref.demo import preferences

    shown = table("finite bandit: policy by gradients against the closed form", "", "responses", "largest error",
                  "moved from the reference")  # fmt: skip
    worst = 0.0
    for name in CLOSED:
        b = preferences.bandit(2 if name == "cdpo" else 5, 0)
        found = preferences.minimised(name, b)
        error = float(np.max(np.abs(found - preferences.closed_form(name, b))))
        shown.add_row(name, str(len(b.ref)), f"{error:.1e}", f"{np.max(np.abs(found - b.ref)):.3f}")
        worst = max(worst, error)
    console.print(shown)
    return worst <= BANDIT_ERROR


def _beside_the_frontier(bar, names, seed, steps):
    """(frontier, {label: [(KL, pass@1)]}, [(label, last point, held out)])."""
    from ref.demo import arithmetic, preferences
    from ref.demo.policy_training import PLANS, Task, Trainer

    training, held = arithmetic.pairs()
    network = _started(bar, seed, SFT)
    some = arithmetic.Pairs(training.prompts[::MEASURED], training.answers[::MEASURED])
    scale = preferences.Scale(some, arithmetic.distribution(network, some.prompts))
    line = scale.frontier(np.geomspace(0.02, 1000, 400))
    paths = {"best of n": scale.best_of((1, 2, 4, 8, 16))}
    pairs = preferences.drawn_pairs(network, training, np.random.default_rng((seed, 5)))
    rows = []
    for name in names:
        online = name in ONLINE
        total = steps or (RL_STEPS if online else DPO_STEPS)
        task = bar.add_task(f"{name}, seed {seed}", total=total)
        paths[name] = [scale.measured(network)]
        if online:
            trainer = Trainer(network, Task(
                training.prompts, arithmetic.MOST, arithmetic.END,
                lambda tokens, mask, rows: arithmetic.rewards(tokens, training, rows)), name, PLANS[name], seed,
            )  # fmt: skip
            new = trainer.network
            for k in range(total):
                trainer.advance()
                bar.update(task, completed=k + 1)
                if (k + 1) % max(total // POINTS, 1) == 0 and k + 1 < total:
                    paths[name].append(scale.measured(new))
        else:
            new = preferences.aligned(network, pairs, name, steps=total, seed=seed,
                                      watch=lambda k, task=task: bar.update(task, completed=k))  # fmt: skip
        paths[name].append(scale.measured(new))
        rows.append((name, paths[name][-1], float(arithmetic.pass_at_1(new, held).mean())))
    return line, paths, rows


# A reward model that is hacked --------------------------------------------------------------------------


def hacking(task, algorithm, gamma, steps, seeds, out):
    """The same reward model twice: without a KL term pass@1 falls while the proxy rises, with one it does not."""
    from ref.demo import hacking as runs

    plan = runs.PLAN._replace(iterations=steps or runs.PLAN.iterations)
    shown = table("hacking: the reward model's mean, and exact pass@1", "run", "seed", "proxy, first", "last",
                  "pass@1, first", "best", "last")  # fmt: skip
    held, solved, proxies = True, {}, {}
    for seed in range(seeds or 1):
        accuracy, curves = _quietly(lambda bar, seed=seed: _hacked(bar, runs, seed, plan))
        console.print(f"seed {seed}: the reward model orders {accuracy:.1%} of fresh pairs as the annotators would")
        for beta, curve in curves.items():
            label, best = f"beta {beta:g}, seed {seed}", max(p.solved for p in curve)
            numbers = (curve[0].proxy, curve[-1].proxy, curve[0].solved, best, curve[-1].solved)
            shown.add_row(f"beta {beta:g}", str(seed), *(f"{x:.4f}" for x in numbers))
            solved[label], proxies[label] = ([(p.iteration, x) for p, x in zip(curve, y, strict=True)] for y in (
                [p.solved for p in curve], [p.proxy for p in curve]))  # fmt: skip
            fall = best - curve[-1].solved
            held &= fall <= HELD if beta else curve[-1].proxy > curve[0].proxy and fall >= FALL
    console.print(shown)
    for name, lines, y in (("pass", solved, "exact pass@1"), ("proxy", proxies, "the reward model's mean")):
        console.print(f"wrote {charts.curves(out / f'hacking-{name}.png', lines, {}, 'iterations', y)}")
    console.print(f"wanted: without a KL term pass@1 falls by {FALL} at least, with one by {HELD} at most")
    return held or bool(steps)


def _hacked(bar, runs, seed, plan):
    """(accuracy of the reward model, {beta: [Point]})."""
    network = _started(bar, seed, runs.START)
    line = bar.add_task(f"reward model, seed {seed}", total=None)
    model, accuracy = runs.fitted(network, seed, watch=lambda step, p: bar.update(line, completed=step))
    curves = {}
    for beta in (0.0, runs.BETA):
        again = bar.add_task(f"beta {beta:g}, seed {seed}", total=plan.iterations)

        def watch(point, again=again, beta=beta):
            text = f"beta {beta:g}, seed {seed}: proxy {point.proxy:.2f}, pass@1 {point.solved:.4f}"
            bar.update(again, completed=point.iteration, description=text)

        _, curves[beta] = runs.trained_on(network, model, seed, beta, plan, watch)
    return accuracy, curves


# R1's pipeline ------------------------------------------------------------------------------------------

R1_FORM, R1_LANGUAGE = 0.95, 0.9  # after the first RL: well-formed, in one language; and pass@1 has risen


def r1(task, algorithm, gamma, steps, seeds, out):
    """Five stages; what each leaves behind, as a table and a picture."""
    from ref.demo import r1 as runs

    budget = runs.BUDGET
    if steps is not None:
        budget = budget._replace(cold_steps=steps, iterations=steps, again=steps, steps=steps, distil=steps)
    shown = table("r1: exact pass@1, and a response to each training pair", "stage", "seed", "pass@1", "held out",
                  "right", "well-formed", "in English", "kept")  # fmt: skip
    lines, held = {}, True
    for seed in range(seeds or 1):

        def one(bar, seed=seed):
            tasks, reports = {}, []

            def watch(stage, step, of):
                tasks.setdefault(stage, None)
                if tasks[stage] is None:
                    tasks[stage] = bar.add_task(f"{stage}, seed {seed}", total=of)
                bar.update(tasks[stage], completed=step)

            runs.pipeline(seed, budget, watch, lambda *stage: reports.append(stage))
            return reports

        found = _quietly(one)
        for r, share in found:
            numbers = [f"{x:.4f}" for x in r[1:]]
            shown.add_row(r.stage, str(seed), *numbers, "" if share is None else f"{share:.1%}")
        lines |= {f"{name}, seed {seed}": [(i + 1, getattr(r, name)) for i, (r, _) in enumerate(found)]
                  for name in ("solved", "held", "formed", "consistent")}  # fmt: skip
        cold, first = found[0][0], found[1][0]
        held &= first.formed >= R1_FORM and first.consistent >= R1_LANGUAGE and first.solved > cold.solved
    console.print(shown)
    console.print(f"wrote {charts.curves(out / 'r1-stages.png', lines, {}, 'stage', 'share')}")
    return held or steps is not None
