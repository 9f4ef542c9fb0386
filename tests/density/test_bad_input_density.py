"""What the density models say of bad input: the function, what arrived, what was needed."""

import numpy as np
import pytest

from ref.density import affine_coupling as coupling
from ref.density import rnade as real
from ref.density import vae_elbo as vae
from ref.density.affine_coupling import affine_coupling
from ref.density.affine_flow import affine_flow, generate
from ref.density.ancestral_sample import ancestral_sample
from ref.density.autoregressive_sample import autoregressive_sample
from ref.density.bayes_net import bayes_net
from ref.density.bernoulli import bernoulli
from ref.density.d_separated import d_separated
from ref.density.fit_tables import fit_tables
from ref.density.fvsbn import fvsbn
from ref.density.gaussian_kl import gaussian_kl
from ref.density.made import made, parameter_shapes
from ref.density.made_masks import made_masks
from ref.density.nade import nade
from ref.density.naive_bayes import naive_bayes
from ref.density.naive_bayes_fit import naive_bayes_fit
from ref.density.rnade import rnade
from ref.density.topological_order import topological_order
from ref.density.vae_elbo import vae_elbo
from ref.density.variable_elimination import variable_elimination


def z(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


f32, whole = {"dtype": np.float32}, {"dtype": np.int64}
GREY = np.array([0.0, 0.5, 1.0])
CYCLE = ((2,), (0,), (1,), (0,))
COIN = np.array([0.5, 0.5])
PAIR = ((), (0,)), (COIN, np.array([[0.25, 0.5], [0.75, 0.5]]))


def net(table, parents=((), (0,))):
    return np.zeros((1, 2), np.int64), parents, (COIN, np.asarray(table))


def params(shapes, **sizes):
    return {name: np.zeros([sizes[a] for a in axes.split()]) for name, axes in shapes.items()}


VAE = params(vae.SHAPES, n=3, z=2, E=2, D=2)
RNADE = params(real.SHAPES, n=3, H=2, K=2)
LAYER = params(coupling.SHAPES, n=3, H=2)
DEGREES = (np.array([1, 2, 3]), np.array([1, 2]))
MADE = {name: np.zeros(shape) for name, shape in parameter_shapes(DEGREES).items()}
MASK = np.array([True, False, True])


def without(tree, name):
    return {k: a for k, a in tree.items() if k != name}


CASES = [
    (bernoulli, ValueError, (GREY, z(3)), {}, "bernoulli: x holds 0.5; needed 0 or 1"),
    (bernoulli, ValueError, (np.array([np.nan]), z(1)), {}, "bernoulli: x holds nan; needed 0 or 1"),
    (bernoulli, ValueError, (z(2, 3), z(3)), {}, r"bernoulli: logits has B=\(\), x has B=\(2,\)"),
    (bernoulli, TypeError, (z(3, **whole), z(3)), {}, "x has dtype int64"),
    (topological_order, ValueError, (CYCLE,), {}, "topological_order: parents hold the cycle 0 -> 1 -> 2 -> 0; needed"),
    (topological_order, ValueError, (((0,),),), {}, "cycle 0 -> 0"),
    (topological_order, ValueError, (((), (2,)),), {}, r"node 1 has the parent 2; needed 0\.\.1"),
    (topological_order, ValueError, (((), (0, 0)),), {}, r"node 1 has the parents \(0, 0\); needed each once"),
    (topological_order, TypeError, (((), (0.0,)),), {}, "float"),
    (bayes_net, ValueError, net([[0.5, 0.25], [0.5, 0.5]]), {},
     r"bayes_net: column \(1,\) of table 1 sums to 0.75; needed 1"),
    (bayes_net, ValueError, net([[1.5, 0.5], [-0.5, 0.5]]), {}, "table 1 holds -0.5; needed probabilities >= 0"),
    (bayes_net, ValueError, net([[np.nan, 0.5], [0.5, 0.5]]), {}, "table 1 holds nan"),
    (bayes_net, ValueError, net([0.5, 0.5]), {}, r"table 1 has shape \(2,\); node 1 has 1 parents, so it needs 2 axes"),
    (bayes_net, ValueError, net([[0.5] * 3] * 2), {},
     r"table 1 has \(3,\) states of its parents \(0,\); they have \(2,\)"),
    (bayes_net, ValueError, net([[1.0]], ((1,), (0,))), {}, "bayes_net: parents hold the cycle 0 -> 1 -> 0"),
    (bayes_net, ValueError, (np.array([0]), ((), (0,)), (COIN,)), {}, "2 nodes and 1 tables"),
    (bayes_net, ValueError, (np.array([0, 2]), *PAIR), {}, r"x holds the state 2 of node 1; needed 0\.\.1"),
    (bayes_net, ValueError, (np.array([0]), *PAIR), {},
     "bayes_net: x has n=1 columns; needed one for each of the 2 nodes"),
    (bayes_net, TypeError, (np.array([0.0, 1.0]), *PAIR), {}, "x has dtype float64"),
    (bayes_net, TypeError, (np.array([0, 1]), PAIR[0], (COIN, np.array([[1, 1], [0, 0]]))), {}, "table 1 is int64"),
    (ancestral_sample, ValueError, (np.array([0.5, 1.0]), *PAIR), {}, r"u holds 1; needed numbers in \[0, 1\)"),
    (ancestral_sample, TypeError, (np.array([0, 0]), *PAIR), {}, "u has dtype int64"),
    (variable_elimination, ValueError, (*PAIR, ()), {}, r"query=\(\); needed one or more of 0\.\.1, each once"),
    (variable_elimination, ValueError, (*PAIR, (2,)), {}, r"query=\(2,\)"),
    (variable_elimination, ValueError, (*PAIR, (0,)), {"evidence": {0: 1}},
     "evidence on node 0; needed nodes .* outside"),
    (variable_elimination, ValueError, (*PAIR, (0,)), {"evidence": {1: 2}}, r"state 2 of node 1; needed 0\.\.1"),
    (variable_elimination, ValueError, (*PAIR, (0,)), {"order": (0,)},
     r"order=\[0\]; needed an order of the hidden nodes \[1\]"),
    (variable_elimination, ValueError, (((), (0,)), (COIN, np.array([[1.0, 1.0], [0.0, 0.0]])), (0,)),
     {"evidence": {1: 1}}, r"evidence \{1: 1\} has probability 0"),
    (d_separated, ValueError, (CYCLE, (0,), (3,)), {}, "d_separated: parents hold the cycle 0 -> 1 -> 2 -> 0"),
    (d_separated, ValueError, (((), (0,)), (0,), (0,)), {}, "node 0 is in x and in y; needed disjoint sets"),
    (d_separated, ValueError, (((), (0,)), (0,), (1,)), {"given": (1,)}, "node 1 is in y and in given"),
    (d_separated, ValueError, (((), (0,)), (), (1,)), {}, "x is empty; needed a node"),
    (d_separated, ValueError, (((), (0,)), (0,), (2,)), {}, r"y holds the node 2; needed 0\.\.1"),
    (fit_tables, ValueError, (np.array([[0, 2]]), ((), ()), np.array([2, 2])), {}, r"state 2 of node 1; needed 0\.\.1"),
    (fit_tables, ValueError, (np.array([[0, 1]]), ((1,), (0,)), np.array([2, 2])), {}, "cycle 0 -> 1 -> 0"),
    (fit_tables, ValueError, (np.array([[0]]), ((),), np.array([2])), {"smoothing": -1.0}, "smoothing=-1.0; needed"),
    (fit_tables, ValueError, (np.array([[0]]), ((),), np.array([0])), {}, "states has 0 for node 0; needed at least 1"),
    (fit_tables, TypeError, (np.array([[0.0]]), ((),), np.array([2])), {}, "x has dtype float64"),
    (naive_bayes, ValueError, (GREY, np.ones(1), z(1, 3) + 0.5), {}, "naive_bayes: x holds 0.5; needed 0 or 1"),
    (naive_bayes, ValueError, (z(3), np.array([0.5, 0.4]), z(2, 3) + 0.5), {}, "prior sums to 0.9, its least is 0.4"),
    (naive_bayes, ValueError, (z(3), np.array([1.5, -0.5]), z(2, 3) + 0.5), {}, "prior sums to 1, its least is -0.5"),
    (naive_bayes, ValueError, (z(3), np.ones(1), z(1, 3)), {},
     r"theta holds a number that is not strictly within \(0, 1\)"),
    (naive_bayes, ValueError, (z(3), np.ones(1), z(1, 2) + 0.5), {}, "theta has n=2, x has n=3"),
    (naive_bayes_fit, ValueError, (GREY[None], np.array([0])), {"classes": 1}, "x holds 0.5"),
    (naive_bayes_fit, ValueError, (z(2, 3), np.array([0, 2])), {"classes": 2}, r"labels hold 2; needed 0\.\.1"),
    (naive_bayes_fit, ValueError, (z(2, 3), np.array([0, -1])), {"classes": 2}, "labels hold -1"),
    (naive_bayes_fit, ValueError, (z(0, 3), z(0, **whole)), {"classes": 2}, "x has N=0 rows"),
    (naive_bayes_fit, ValueError, (z(1, 3), np.array([0])), {"classes": 1, "smoothing": -1}, "smoothing=-1; needed"),
    (fvsbn, ValueError, (GREY, z(3, 3), z(3)), {}, "fvsbn: x holds 0.5; needed 0 or 1"),
    (fvsbn, ValueError, (z(3), z(3, 2), z(3)), {}, "fvsbn: weight has n=2, x has n=3"),
    (fvsbn, TypeError, (z(3), z(3, 3, **f32), z(3)), {}, "weight has dtype float32"),
    (nade, ValueError, (GREY, z(2, 3), z(2), z(3, 2), z(3)), {}, "nade: x holds 0.5; needed 0 or 1"),
    (nade, ValueError, (z(3), z(2, 3), z(4), z(3, 2), z(3)), {}, "nade: hidden_bias has H=4, weight has H=2"),
    (nade, ValueError, (z(3), z(2, 3), z(2), z(2, 3), z(3)), {}, "nade: output_weight has n=2, x has n=3"),
    (made_masks, ValueError, ((),), {}, "made_masks: degrees is empty"),
    (made_masks, ValueError, ((np.array([1, 1, 3]),),), {}, r"degrees\[0\] is no permutation of 1\.\.3"),
    (made_masks, ValueError, ((np.array([1, 2, 3]), np.array([1, 3])),), {},
     r"degrees\[1\] holds 1\.\.3; needed 1\.\.2"),
    (made_masks, ValueError, ((np.array([1, 2, 3]), np.array([0])),), {}, r"degrees\[1\] holds 0\.\.0; needed 1\.\.2"),
    (made_masks, TypeError, ((np.array([1.0, 2.0]),),), {}, r"degrees\[0\] has dtype float64; needed int"),
    (made, ValueError, (GREY, MADE, DEGREES), {}, "made: x holds 0.5; needed 0 or 1"),
    (made, ValueError, (z(4), MADE, DEGREES), {}, r"made: x has n=4 bits, degrees\[0\] has 3"),
    (made, ValueError, (z(3), without(MADE, "layers.1.bias"), DEGREES), {}, r"params lack \['layers.1.bias'\]"),
    (made, ValueError, (z(3), {**MADE, "layers.0.bias": z(3)}, DEGREES), {},
     r"layers.0.bias has shape \(3,\); needed \(2,\)"),
    (made, TypeError, (z(3), {**MADE, "layers.0.bias": z(2, **f32)}, DEGREES), {}, "param has dtype float32"),
    (autoregressive_sample, ValueError, (np.array([1.0]),), {"conditional": lambda x: x},
     r"u holds a number outside \[0, 1\)"),
    (autoregressive_sample, ValueError, (z(2),), {"conditional": lambda x: x, "order": (0, 0)},
     r"order=\[0, 0\]; needed"),
    (autoregressive_sample, ValueError, (z(2),), {"conditional": lambda x: x[:1]}, r"gave shape \(1,\); needed \(2,\)"),
    (rnade, ValueError, (z(3), without(RNADE, "scale")), {}, r"rnade: params lack \['scale'\]"),
    (rnade, ValueError, (z(4), RNADE), {}, "rnade: weight has n=3, x has n=4"),
    (rnade, ValueError, (z(3), params(real.SHAPES, n=3, H=2, K=0)), {}, "K=0 components; needed at least 1"),
    (gaussian_kl, ValueError, (z(3), z(4)), {}, "gaussian_kl: log_variance has z=4, mean has z=3"),
    (vae_elbo, ValueError, (GREY, z(2), VAE), {}, "vae_elbo: x holds 0.5; needed 0 or 1"),
    (vae_elbo, ValueError, (z(3), z(4), VAE), {}, "encoder_mean_weight has z=2, noise has z=4"),
    (vae_elbo, ValueError, (z(3), z(2), {**VAE, "extra": z(1)}), {}, r"unexpected \['extra'\]"),
    (affine_coupling, ValueError, (z(3), LAYER, MASK[:2]), {}, "affine_coupling: mask has n=2, x has n=3"),
    (affine_coupling, TypeError, (z(3), LAYER, z(3)), {}, r"mask has dtype float64; mask\[n\] must be bool"),
    (affine_coupling, ValueError, (z(3), without(LAYER, "shift.bias"), MASK), {}, r"params lack \['shift.bias'\]"),
    (affine_flow, ValueError, (z(4), [LAYER]), {}, "affine_coupling: hidden_weight has n=3, x has n=4"),
    (generate, TypeError, (z(3, **whole), [LAYER]), {}, "generate: z has dtype int64"),
]  # fmt: skip


@pytest.mark.parametrize("function, error, args, options, said", CASES)
def test_bad_input_is_named(function, error, args, options, said):
    with pytest.raises(error, match=said):
        function(*args, **options)


@pytest.mark.parametrize(
    ("parents", "cycle"),
    [
        (((1,), (0,)), "0 -> 1 -> 0"),
        (((), (3,), (1,), (2,), (0,)), "1 -> 2 -> 3 -> 1"),  # a cycle that does not hold node 0
        (((1,), (2,), (1,)), "1 -> 2 -> 1"),  # node 0 hangs below the cycle
        (((), (0, 4), (1,), (2,), (3,)), "1 -> 2 -> 3 -> 4 -> 1"),
    ],
)
def test_a_cycle_is_walked_along_its_edges(parents, cycle):
    with pytest.raises(ValueError, match=f"the cycle {cycle};"):
        topological_order(parents)
