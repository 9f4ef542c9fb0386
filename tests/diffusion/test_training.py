"""The losses differentiate: with respect to parameters, through divergences, and they train."""

import numpy as np
import pytest

from autodiff import grad, hvp, namespace, tensor, value_and_grad
from ref.diffusion.alpha_bar import alpha_bar
from ref.diffusion.annealed_langevin import annealed_langevin
from ref.diffusion.denoising_score_matching import denoising_score_matching
from ref.diffusion.explicit_score_matching import explicit_score_matching
from ref.diffusion.flow_matching_loss import flow_matching_loss
from ref.diffusion.gaussian_model import gaussian_model
from ref.diffusion.implicit_score_matching import implicit_score_matching
from ref.diffusion.langevin import langevin
from ref.diffusion.linear_schedule import linear_schedule
from ref.diffusion.ncsnv2_sigmas import geometric_sigmas
from ref.diffusion.ncsnv2_step_size import ncsnv2_step_size
from ref.diffusion.simple_loss import simple_loss
from ref.diffusion.sliced_score_matching import sliced_score_matching
from ref.diffusion.vlb_term import vlb_term

RNG = np.random.default_rng(0)
D = 3
X = RNG.standard_normal((40, D)) @ RNG.standard_normal((D, D)) + RNG.standard_normal(D)
MEAN, S = X.mean(0), np.cov(X.T, bias=True)


def linear(p):
    """-L (x - m)."""
    return lambda x, *_: (x - p["m"]) @ (namespace(p["L"]).matrix_transpose(p["L"]) * -1.0)


def parameters(seed=1):
    g = np.random.default_rng(seed)
    return {"L": g.standard_normal((D, D)) + 2 * np.eye(D), "m": g.standard_normal(D)}


def test_implicit_score_matching_has_the_gradient_of_its_closed_form():
    """J = tr(L C L^T) / 2 - tr L, C the scatter about m: dJ/dL = L C - I, dJ/dm = -L^T L (mean - m)."""
    p = parameters()
    loss = lambda p: implicit_score_matching(X, score=linear(p)).mean()  # noqa: E731
    value, found = value_and_grad(loss)(p)
    off = MEAN - p["m"]
    C = S + np.outer(off, off)
    assert np.isclose(value, np.trace(p["L"] @ C @ p["L"].T) / 2 - np.trace(p["L"]), rtol=1e-12)
    assert np.allclose(found["L"], p["L"] @ C - np.eye(D), atol=1e-10)
    assert np.allclose(found["m"], -p["L"].T @ p["L"] @ off, atol=1e-10)
    best = {"L": np.linalg.inv(S), "m": MEAN}
    assert all(np.abs(g).max() < 1e-9 for g in grad(loss)(best).values())


def test_sliced_score_matching_over_all_signs_has_that_gradient_too():
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * D)).reshape(D, -1).T
    v = np.broadcast_to(signs[:, None], (2**D, len(X), D))
    p = parameters()
    wanted = grad(lambda p: implicit_score_matching(X, score=linear(p)).mean())(p)
    for reduced in (False, True):
        found = grad(lambda p, r=reduced: sliced_score_matching(X, v, score=linear(p), reduced=r).mean())(p)
        assert all(np.allclose(found[k], wanted[k], atol=1e-10) for k in p)


def net(p):
    """A small tanh net; no closed form."""
    return lambda x, *_: namespace(x, p["W"]).tanh(x @ p["W"]) @ p["V"]


def test_the_gradient_of_a_nets_score_matching_is_that_of_differences():
    g = np.random.default_rng(2)
    p = {"W": g.standard_normal((D, 5)), "V": g.standard_normal((5, D))}
    loss = lambda p: implicit_score_matching(X, score=net(p)).mean()  # noqa: E731
    found = grad(loss)(p)
    for name in p:
        for at in ((0, 1), (2, 2)):
            unit = np.zeros_like(p[name])
            unit[at] = 1e-5
            moved = [{**p, name: p[name] + s * unit} for s in (1, -1)]
            slope = (loss(moved[0]) - loss(moved[1])) / 2e-5
            assert np.isclose(found[name][at], slope, rtol=1e-6, atol=1e-8)
    direction = {k: np.ones_like(v) for k, v in p.items()}
    (second,) = hvp(loss, (p,), (direction,), mode="reverse_over_reverse")  # a third derivative of the net
    e = 1e-4
    up, down = (grad(loss)({k: p[k] + s * e * direction[k] for k in p}) for s in (1, -1))
    assert all(np.allclose(second[k], (up[k] - down[k]) / (2 * e), rtol=1e-5, atol=1e-6) for k in p)


def test_tensors_that_require_grad_get_it_from_every_loss():
    g, bars = np.random.default_rng(3), alpha_bar(linear_schedule(np.array(20), first=0.01, last=0.2))
    t, z = g.integers(1, 21, len(X)), g.standard_normal(X.shape)
    losses = {
        "simple": lambda model: simple_loss(X, t, z, bars, model=model),
        "vlb": lambda model: vlb_term(X, t, z, bars, model=model).sum(axis=-1),
        "discretized": lambda model: vlb_term(
            X * 0, t * 0 + 1, z, bars, model=model, decoder="discretized", bins=5
        ).sum(axis=-1),
        "denoising": lambda model: denoising_score_matching(X, z, np.full(len(X), 0.5), score=model),
        "explicit": lambda model: explicit_score_matching(X, z, score=model),
        "implicit": lambda model: implicit_score_matching(X, score=model),
        "flow": lambda model: flow_matching_loss(X, z, t / 20, velocity=model),
    }  # fmt: skip
    for name, loss in losses.items():
        p = {k: tensor(v, requires_grad=True) for k, v in parameters().items()}
        out = loss(linear(p))
        assert out.shape == (len(X),), name
        out.mean().backward()
        raw = {k: np.array(v.data) for k, v in p.items()}
        at = ("L", (0, 1))
        moved = []
        for s in (1, -1):
            q = {k: v.copy() for k, v in raw.items()}
            q["L"][0, 1] += s * 1e-5
            moved.append(float(np.mean(loss(linear(q)))))
        assert np.isclose(p["L"].grad[at[1]], (moved[0] - moved[1]) / 2e-5, rtol=1e-5, atol=1e-8), name


def test_a_learned_variance_gets_a_gradient_through_the_bound():
    bars = alpha_bar(linear_schedule(np.array(10), first=0.05, last=0.3))
    mix = tensor(np.full(X.shape, 0.3), requires_grad=True)
    t = np.full(len(X), 5)
    vlb_term(X, t, 0 * X, bars, model=lambda x, t: (x * 0, mix), variance="learned").sum().backward()
    assert mix.grad.shape == X.shape and np.all(mix.grad != 0)


def test_a_linear_model_trained_by_the_simple_loss_finds_the_exact_one():
    """Gradient descent on L_simple at one step: the least squares solution of the sample's own draws."""
    bars, step = alpha_bar(linear_schedule(np.array(10), first=0.05, last=0.3)), 6
    g = np.random.default_rng(4)
    x, z, t = np.tile(X, (50, 1)), g.standard_normal((50 * len(X), D)), np.full(50 * len(X), step)
    A = tensor(np.zeros((D, D)), requires_grad=True)
    b = tensor(np.zeros(D), requires_grad=True)
    for _ in range(300):
        loss = simple_loss(x, t, z, bars, model=lambda y, _: y @ A + b).mean()
        A.grad = b.grad = None
        loss.backward()
        A.data -= 0.5 * A.grad
        b.data -= 0.5 * b.grad
    a, s = np.sqrt(bars[step - 1]), np.sqrt(1 - bars[step - 1])
    probe = g.standard_normal((5, D))
    wanted = gaussian_model(probe, MEAN, S, scale=a, std=s, prediction="eps")
    assert np.abs(probe @ A.data + b.data - wanted).max() < 0.1


# The mixture of the source article: plain Langevin dynamics does not see the weights of distant modes ---------


CENTERS, WEIGHTS = np.array([[-5.0, -5.0], [5.0, 5.0]]), np.array([0.2, 0.8])


def mixture_score(x, sigma=0.0):
    """Score of 0.2 N(c_1, I) + 0.8 N(c_2, I), noised by sigma."""
    V = 1 + sigma**2
    off = CENTERS - x[:, None]
    logits = np.log(WEIGHTS) - np.sum(off**2, -1) / (2 * V)
    w = np.exp(logits - logits.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    return np.sum(w[..., None] * off, 1) / V


def weight_of_the_large_mode(x):
    return np.mean(x.sum(1) > 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_annealed_langevin_finds_the_weights_of_the_modes_and_plain_langevin_does_not(seed):
    g, n = np.random.default_rng(seed), 1500
    start = g.uniform(-8, 8, (n, 2))
    plain = langevin(start, g, score=mixture_score, step=0.05, steps=400)
    sigmas = geometric_sigmas(20.0, 0.1, 10)
    eps = float(ncsnv2_step_size(sigmas, steps=40))
    annealed = annealed_langevin(
        20 * g.standard_normal((n, 2)), g, score=mixture_score, sigmas=sigmas, step=eps, steps=40
    )
    # Uniform starts fall to the nearer mode, half of them: .5 within 3 deviations of 1500 coins; the annealed run
    # has .8 within 5 of them and what its step leaves.
    assert abs(weight_of_the_large_mode(plain) - 0.5) < 0.05
    assert abs(weight_of_the_large_mode(annealed) - 0.8) < 0.06
    fisher = np.mean(explicit_score_matching(plain, mixture_score(plain), score=lambda x: mixture_score(x)))
    assert fisher == 0


def test_the_fisher_divergence_does_not_see_the_weights_either():
    """The score of the mixture with weights swapped is nearly the same at samples of the first: that is why."""
    g = np.random.default_rng(5)
    which = g.random(2000) < WEIGHTS[1]
    x = CENTERS[which.astype(int)] + g.standard_normal((2000, 2))
    swapped = lambda y: -mixture_score(-y)  # noqa: E731  the mirror image has the weights exchanged
    assert np.mean(explicit_score_matching(x, mixture_score(x), score=swapped)) < 1e-4
    half = lambda y: 0.5 * mixture_score(y)  # noqa: E731
    assert np.mean(explicit_score_matching(x, mixture_score(x), score=half)) > 0.2
