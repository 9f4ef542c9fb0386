"""The generative models of the digits in a minute of CPU, each against what it must already be; exit 1 on a fault.

    python -m tests.deep.generative_smoke

Short trainings of what `closedform train-diffusion` and `train-density` run; their bars are judged by the deep profile.
"""

import sys
import time

import numpy as np

from backends.pages import keep_freed_pages
from ref.demo import density, diffusion, diffusion_bits, diffusion_control, diffusion_solvers, digits
from ref.demo.diffusion import Plan


def samples(data, judge):
    """800 steps: nearer to the held-out digits than a fifth of what noise is, and most are what was asked for."""
    made = diffusion.train(data, Plan(steps=800))
    noise = digits.references(judge, data)["noise"].distance
    for name, budget in (("dpm-solver++2m", 10), ("ddim", 20)):
        evaluations, x = diffusion_solvers.run(name, budget, made.params, 500)
        found = digits.scores(judge, x, digits.asked(500))
        print(f"samples, {name}, {evaluations} evaluations: {found}; noise {noise:.1f}")
        yield f"{name}: {found}", found.agreement > 0.8 and found.distance < noise / 5 and found.nearest > 0.5


def bits(data):
    """800 steps: fewer bits than the Gaussian fit has of the same images, by a solver that has converged."""
    made, base = diffusion_bits.train(data.x, diffusion_bits.PLAN._replace(steps=800, decay=0.99))
    images = data.x[-40:]
    found = diffusion_bits.bits_per_dimension(made.params, base, images, steps=8)
    gaussian = diffusion_bits.references(data.x, images)["Gaussian fit"]
    print(f"bits per dimension: {found.mean:.3f}, solver {found.solver_error:.4f}; Gaussian fit {gaussian:.3f}")
    yield f"bits {found.mean}, Gaussian fit {gaussian}", found.mean < gaussian


def control(data):
    """30 steps of each: an untrained control is the base, a trained one is not, and both losses fall."""
    plan = Plan(steps=30, batch=16, decay=0.9)
    base = diffusion_control.train_base(data, plan)
    start = diffusion_control.train_control(data, base.params, Plan(steps=0)).params
    made = diffusion_control.train_control(data, base.params, plan)
    first, found = (diffusion_control.errors(base.params, c, data.held_x[:20], steps=3) for c in (start, made.params))
    fell = np.mean(base.losses[-5:]) / np.mean(base.losses[:5])
    print(f"control: errors {found[:3]}; untrained {first[:3]}; the base's loss fell to {fell:.2f}")
    yield f"untrained {first[:3]}", first.base == first.control == first.shuffled == found.base
    yield f"trained {found[:3]}, loss {fell}", found.control != found.base and fell < 0.8


def densities():
    """4 epochs: FVSBN, NADE and MADE each below independent bits."""
    parts = density.load()
    alone = density.counted_loss(parts.selection, *density.counted(parts)["independent bits"])
    for model in density.models(parts):
        found = density.fit(model, parts, epochs=4)
        print(f"{model.name}: {min(found.selection):.2f} nats after 4 epochs; independent bits {alone:.2f}")
        yield f"{model.name} {found.selection}", min(found.selection) < alone - 2


def main():
    keep_freed_pages()
    data = digits.load()
    judge = digits.fit_judge(data)
    faults, started = [], time.process_time()
    for name, work in (("samples", samples(data, judge)), ("bits", bits(data)), ("control", control(data)),
                       ("densities", densities())):  # fmt: skip
        faults += [f"{name}: {said}" for said, held in work if not held]
        print(f"{name} done after {time.process_time() - started:.0f} CPU seconds", flush=True)
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
