"""`closedform train-rl TASK --algorithm NAME`: reinforcement learning and alignment, before your eyes.

A task is a Task: its algorithms and the function that runs one. More tasks are added to TASKS by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ref.demo import alignment_command, arithmetic_command, charts, environments, rl_pictures
from ref.demo.rl_screen import Task, console, progress, usage

MONTE_CARLO_EPISODES = 20_000
CARTPOLE_BAR = 400.0


def register(app):
    """Add the command to a typer app."""
    app.command("train-rl")(train_rl)


def train_rl(
    task: Annotated[str, typer.Argument(help="An environment or a task; a wrong one lists them.")],
    algorithm: Annotated[str | None, typer.Option(help="By default the task's first; a wrong one lists them.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Discount; each environment has its own default.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps in the environment; episodes for Monte Carlo, else iterations.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs, each with its own seed.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("closedform-rl"),
):
    """Reinforcement learning: planning, temporal differences, Monte Carlo and PPO in gymnasium's environments; GRPO and
    its kin, DPO and its family, and a pipeline like R1's on a small language model, whose scores are exact."""
    if task not in TASKS:
        usage(f"no task {task!r}; there are {', '.join(TASKS)}")
    algorithm = algorithm or TASKS[task].algorithms[0]
    if algorithm not in TASKS[task].algorithms:
        usage(f"no algorithm {algorithm!r} for {task}; there are {', '.join(TASKS[task].algorithms)}")
    if gamma is not None and not 0 <= gamma <= 1:
        usage(f"--gamma {gamma}; needed 0 to 1")
    if TASKS[task].discounted:
        _need_gymnasium()
    elif gamma is not None:
        usage(f"--gamma means nothing for {task}")
    out.mkdir(parents=True, exist_ok=True)
    if not TASKS[task].run(task, algorithm, gamma, steps, seeds, out):
        raise typer.Exit(1)


def _need_gymnasium():
    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError:
        usage("gymnasium is not installed; pip install 'closedform[rl]'")


# The small environments -------------------------------------------------------------------------------


def small(task, algorithm, gamma, steps, seeds, out):
    """Planning on the tables, or learning from walks in them."""
    from ref.demo import tabular

    if algorithm == "ppo":
        return ppo(task, algorithm, gamma, steps, seeds, out)
    gamma = 0.99 if gamma is None else gamma
    table = environments.table(task)
    if algorithm in tabular.PLANNING:
        if gamma == 1 and algorithm == "policy_iteration":
            usage("policy_iteration at --gamma 1 would meet policies that never end; take value_iteration")
        return _planned(task, table, algorithm, gamma, out)
    return _learned(task, table, algorithm, gamma, steps, seeds or 1, out)


def _planned(task, table, algorithm, gamma, out):
    from ref.demo import tabular

    with progress() as bar:
        line = bar.add_task(algorithm, total=None)
        run = tabular.plan(table, algorithm, gamma, watch=lambda k, error: bar.update(
            line, completed=k, description=f"{algorithm}: largest error {error:.2e}"))  # fmt: skip
        bar.update(line, total=len(run.curve) - 1, completed=len(run.curve) - 1)
    known = tabular.KNOWN.get((task, gamma))
    start = float(table.start @ run.values)
    shown = Table(title=f"{task}, {algorithm}, gamma {gamma:g}", box=SIMPLE_HEAD)
    for head in ("", "found", "known"):
        shown.add_column(head, justify="left" if not head else "right")
    shown.add_row("value of the start", f"{start:.7f}", "" if known is None else f"{known:.7f}")
    shown.add_row("value of the start under the policy", f"{tabular.worth(table, run.policy, gamma):.7f}", "")
    held = known is None or abs(start - known) < 1e-6
    held &= _limit_rows(shown, task, table, run.policy, gamma)
    shown.add_row(run.unit, str(len(run.curve) - 1), "")
    console.print(shown)
    name = f"{task}-{algorithm}"
    values = rl_pictures.value_map(out / f"{name}-values.png", task, table, run.values, run.policy)
    errors = rl_pictures.error_curve(out / f"{name}-errors.png", run.curve, gamma, run.unit)
    console.print(f"wrote {values} and {errors}")
    return held


def _limit_rows(shown, task, table, policy, gamma):
    """Rows on reaching the goal before the limit of steps; whether the known numbers were met."""
    from ref.demo import tabular

    if table.limit is None:
        return True
    clock, fixed = tabular.WITHIN_LIMIT[task]
    best, mine = tabular.within_limit(table), tabular.within_limit(table, policy)
    shown.add_row(f"goal within {table.limit} steps, by the best policy with a clock", f"{best:.6f}", f"{clock:.6f}")
    text = f"{fixed:.6f}" if fixed is not None and gamma >= 0.99 else ""
    shown.add_row("the same, by this policy", f"{mine:.6f}", text)
    return abs(best - clock) < 1e-6 and (not text or abs(mine - fixed) < 1e-6)


def _learned(task, table, algorithm, gamma, steps, seeds, out):
    from ref.demo import tabular

    found, sampled = {}, algorithm in tabular.EPISODES
    settings = tabular.LEARNING[task]
    settings = settings if steps is None else settings._replace(steps=steps)
    total = (steps or MONTE_CARLO_EPISODES) if sampled else settings.steps
    with progress() as bar:
        for seed in range(seeds):
            line = bar.add_task(f"{algorithm}, seed {seed}", total=total)

            def watch(x, start, line=line, seed=seed):
                bar.update(line, completed=x, description=f"{algorithm}, seed {seed}: the start is worth {start:.4f}")

            if sampled:
                found[seed] = tabular.episodes(table, algorithm, gamma, total, seed, watch)
            else:
                found[seed] = tabular.walk(table, algorithm, gamma, settings, seed, watch)
    best = float(table.start @ tabular.optimal(table, gamma))
    shown = Table(title=f"{task}, {algorithm}, gamma {gamma:g}: exact values of the greedy policies", box=SIMPLE_HEAD)
    heads = ["seed", "value of the start", "best possible"]
    heads += [] if table.limit is None else [f"goal within {table.limit} steps", "best with a clock"]
    for head in heads:
        shown.add_column(head, justify="right")
    for seed, run in found.items():
        row = [str(seed), f"{tabular.worth(table, run.policy, gamma):.6f}", f"{best:.6f}"]
        if table.limit is not None:
            row += [f"{tabular.within_limit(table, run.policy):.6f}", f"{tabular.within_limit(table):.6f}"]
        shown.add_row(*row)
    console.print(shown)
    first = found[0]
    lines = {f"seed {seed}": [(x, start) for x, _, start in run.curve] for seed, run in found.items()}
    picture = charts.curves(
        out / f"{task}-{algorithm}-curve.png", lines, {"best possible": best}, first.unit,
        "value of the start under the greedy policy",
    )  # fmt: skip
    values = rl_pictures.value_map(out / f"{task}-{algorithm}-values.png", task, table, first.values, first.policy)
    console.print(f"wrote {picture} and {values}")
    return True


# PPO --------------------------------------------------------------------------------------------------


def ppo(task, algorithm, gamma, steps, seeds, out):
    """PPO from several seeds, judged by fresh episodes, and in the small environments exactly."""
    from ref.demo import ppo as runs

    plan = runs.PLANS[task]
    plan = plan._replace(gamma=plan.gamma if gamma is None else gamma, steps=steps or plan.steps)
    if plan.steps < plan.environments * plan.horizon:
        usage(f"--steps {plan.steps}; needed at least {plan.environments * plan.horizon}, one iteration")
    curves, rows = {}, []
    with progress() as bar:
        for seed in range(seeds or 5):
            line = bar.add_task(f"ppo, seed {seed}", total=plan.steps)

            def watch(taken, returns, line=line, seed=seed):
                recent = float(np.mean(returns[-100:])) if returns else 0.0
                bar.update(line, completed=taken, description=f"ppo, seed {seed}: mean return {recent:.2f}")

            agent, curves[f"seed {seed}"] = runs.train(task, plan, seed, watch)
            rows.append((seed, curves[f"seed {seed}"][-1], runs.play(agent, task, 100, 10_000 + seed), agent))
    shown = Table(title=f"{task}, ppo, {plan.steps} steps of training", box=SIMPLE_HEAD)
    exact = task in environments.SMALL
    for head in ("seed", "last 100 episodes", "100 fresh episodes", "worst", *(("exact", "greedy") if exact else ())):
        shown.add_column(head, justify="right")
    table = environments.table(task) if exact else None
    for seed, (_, last), returns, agent in rows:
        more = [f"{x:.4f}" for x in _exactly(table, agent)] if exact else []
        shown.add_row(str(seed), f"{last:.2f}", f"{np.mean(returns):.2f}", f"{min(returns):.0f}", *more)
    console.print(shown)
    levels, median = {}, float(np.median([np.mean(r[2]) for r in rows]))
    if task == "cartpole":
        levels = {"the bar": CARTPOLE_BAR}
        console.print(f"median of {len(rows)} seeds: {median:.1f}; the bar is {CARTPOLE_BAR:g} within 100 000 steps")
    elif table.limit is not None:
        from ref.demo import tabular

        levels = {"best with a clock": tabular.within_limit(table)}
    picture = charts.curves(
        out / f"{task}-ppo-curve.png",
        curves,
        levels,
        "steps in the environment",
        "mean return of the last 100 episodes",
    )
    console.print(f"wrote {picture}")
    return task != "cartpole" or plan.steps < 100_000 or median >= CARTPOLE_BAR


def _exactly(table, agent):
    """What the policy and its greedy form earn, by exact evaluation: within the limit of steps where there is one."""
    from ref.demo import tabular
    from ref.mdp.epsilon_greedy import epsilon_greedy

    p = agent.chances(agent.observe(np.arange(len(table.R) - 1))).astype(np.float64)
    p = p / p.sum(1, keepdims=True)
    for policy in (p, epsilon_greedy(p)):
        policy = np.concatenate([policy, np.eye(policy.shape[1])[:1]])
        yield tabular.within_limit(table, policy) if table.limit else tabular.worth(table, policy, 1.0)


ON_TABLES = (
    "value_iteration", "policy_iteration", "truncated_policy_iteration", "q_learning", "sarsa", "expected_sarsa",
    "mc_exploring_starts", "mc_epsilon_greedy",
)  # fmt: skip
TASKS = {
    "frozenlake": Task((*ON_TABLES, "ppo"), small),
    "frozenlake8x8": Task((*ON_TABLES, "ppo"), small),
    "cliffwalking": Task(ON_TABLES, small),
    "cartpole": Task(("ppo",), ppo),
    "arithmetic": Task(("grpo", "sft", "ppo", "rloo", "dapo", "kimi"), arithmetic_command.run, discounted=False),
    "dpo": Task(("all", *alignment_command.NAMES), alignment_command.dpo, discounted=False),
    "hacking": Task(("rloo",), alignment_command.hacking, discounted=False),
    "r1": Task(("grpo",), alignment_command.r1, discounted=False),
}
