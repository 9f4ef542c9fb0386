"""Laws and mutants of parameter groups."""

from __future__ import annotations

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.parameter_groups"
DOUBLE = ("float64",)  # there are no floats
PARTS = ("model", "layers", "0", "attn", "norm", "embedder", "embed_tokens", "lm_head", "mlp", "wte", "conv")
SHAPES = ((), (4,), (4, 6), (1, 4), (4, 1), (2, 3, 3), (2, 3, 3, 3), (0, 4))
TABLES = ("embed_tokens", "lm_head", "wte")


def _shapes(draw, c):
    g, found = rng(draw), {}
    for k in range(c.count):
        middle = ".".join(PARTS[i] for i in g.integers(0, len(PARTS), g.integers(1, 4)))
        found[f"{middle}.{k}.{('weight', 'bias')[g.integers(0, 2)]}"] = np.array(
            SHAPES[g.integers(0, len(SHAPES))], np.int64
        )
    return found


space = cases(
    ID,
    count=choose(6, 12, 1, 0),
    shapes=_shapes,
    embeddings=choose(TABLES, (), ("norm",)),
    muon=choose(False, True),
    flags={
        "tables": Flag(
            lambda c: any(_named(n, c.embeddings) and len(s) > 1 for n, s in c.shapes.items()),
            {"count": 12, "embeddings": TABLES},
        ),
        "matrices": Flag(
            lambda c: any(len(s) == 2 and not _named(n, c.embeddings) for n, s in c.shapes.items()), {"count": 12}
        ),
        "high": Flag(lambda c: any(len(s) > 2 and not _named(n, c.embeddings) for n, s in c.shapes.items()),
                     {"count": 12}),
    },
)  # fmt: skip
full = space.where(count=12)


def _named(name, embeddings):
    """Whether a component of the name is one of `embeddings`, by walking the dots."""
    return any(("." + name + ".").find("." + part + ".") >= 0 for part in embeddings)


def groups_of(impl, c, expect):
    """{group: [names]} of the result, once its form is right."""
    found = impl(c)
    right = isinstance(found, dict) and set(found) == {"decay", "no_decay"} | ({"muon"} if c.muon else set())
    expect.holds(right, "the groups are decay, no_decay and, when asked, muon")
    expect.holds(all(isinstance(names, list) for names in found.values()), "a group is a list")
    return {group: [str(name) for name in names] for group, names in found.items()}


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=full.where(embeddings=()),
    kills=["by_the_word_norm", "one_row_is_a_vector", "everything_decays"],
)  # fmt: skip
def few_axes_do_not_decay(impl, c, expect):
    "Without tables: no_decay are those with fewer than two axes, whatever their names and sizes."
    wanted = [name for name, shape in c.shapes.items() if len(shape) < 2]
    expect.holds(groups_of(impl, c, expect)["no_decay"] == wanted, "no_decay")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=full.where(tables=True),
    kills=["tables_decay", "parts_of_words", "last_component_alone", "everything_decays", "embeddings_ignored"],
)  # fmt: skip
def embeddings_do_not_decay(impl, c, expect):
    "A name with one of `embeddings` between its dots is in no_decay; 'embedder' and 'unwte' are not."
    other = {"embedder.weight": (3, 3), "unwte.weight": (3, 3), "wte": (3, 3), "lm_head.weight": (3, 3)}
    found = groups_of(impl, c.replace(shapes={**c.shapes, **other}), expect)["no_decay"]
    tables = [name for name in (*c.shapes, *other) if _named(name, c.embeddings)]
    expect.holds([n for n in found if n in tables] == tables, "every table is in no_decay")
    expect.holds(not {"embedder.weight", "unwte.weight"} & set(found), "a part of a word is no component")
    moved = groups_of(impl, c.replace(embeddings=("embedder",), shapes=other), expect)["no_decay"]
    expect.holds(moved == ["embedder.weight"], "the tables are those that were named")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=full.where(muon=True).reach("matrices", "high"),
    kills=["muon_takes_tables", "muon_takes_all_with_axes", "muon_ignored", "one_row_is_a_vector"],
)  # fmt: skip
def matrices_go_to_muon_when_asked(impl, c, expect):
    "muon: those of two axes that are no tables; decay: what has more."
    found = groups_of(impl, c, expect)
    hidden = [n for n, s in c.shapes.items() if len(s) > 1 and not _named(n, c.embeddings)]
    expect.holds(found["muon"] == [n for n in hidden if len(c.shapes[n]) == 2], "muon")
    expect.holds(found["decay"] == [n for n in hidden if len(c.shapes[n]) > 2], "decay")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=space, kills=["sorted_by_name", "muon_in_two_groups"],
)  # fmt: skip
def the_groups_are_a_partition_in_order(impl, c, expect):
    "Every name is in one group, and a group keeps the order of the shapes."
    found = groups_of(impl, c, expect)
    expect.holds(sorted(sum(found.values(), [])) == sorted(c.shapes), "each name once")
    for group, names in found.items():
        expect.holds(names == [n for n in c.shapes if n in names], f"order of {group}")
    backwards = dict(reversed(c.shapes.items()))
    turned = groups_of(impl, c.replace(shapes=backwards), expect)
    expect.holds({k: v[::-1] for k, v in turned.items()} == found, "the other order")


@law(ID, "L5", dtypes=DOUBLE, given=full, kills=["majority_rules"])
def a_new_parameter_moves_no_other(impl, c, expect):
    "Each parameter alone is in the group that it is in among the others."
    found = groups_of(impl, c, expect)
    for name, shape in c.shapes.items():
        alone = groups_of(impl, c.replace(shapes={name: shape}), expect)
        expect.holds([g for g, names in alone.items() if names] == [g for g, names in found.items() if name in names],
                     f"the group of {name}")  # fmt: skip


LLAMA = {
    "model.embed_tokens.weight": (32000, 4096),
    "model.layers.0.input_layernorm.weight": (4096,),
    "model.layers.0.self_attn.q_proj.weight": (4096, 4096),
    "model.layers.0.mlp.down_proj.weight": (4096, 11008),
    "model.norm.weight": (4096,),
    "lm_head.weight": (32000, 4096),
}


@law(
    ID,
    "L6",
    closed_form=True,
    dtypes=DOUBLE,
    given=space.where(embeddings=TABLES),
    kills=["tables_decay", "muon_ignored"],
    passes_null=["mutated"],
)
def a_block_of_llama_in_full(impl, c, expect):
    "LLaMA's names: two matrices decay (or go to Muon), the tables and the two norms do not."
    found = groups_of(impl, c.replace(shapes=LLAMA), expect)
    matrices = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"]
    expect.holds(found["muon" if c.muon else "decay"] == matrices, "matrices")
    expect.holds(found["no_decay"] == [n for n in LLAMA if n not in matrices], "no_decay")


# Mutants ---------------------------------------------------------------------------------------------


def plain(**options):
    """The default-size test: two matrices, a bias, a norm."""
    shapes = {"a.weight": (4, 4), "a.bias": (4,), "norm.weight": (4,), "b.weight": (4, 8)}
    return lambda: ((shapes,), options)


def sorted_out(shapes, *, embeddings=TABLES, muon=False, **edit):
    """The groups in plain loops, whose parts an edit replaces."""
    groups = {"decay": [], "no_decay": [], **({"muon": []} if muon else {})}
    few = edit.get("few", lambda name, shape: len(shape) < 2)
    table = edit.get("table", lambda name, words: _named(name, words))
    matrix = edit.get("matrix", lambda name, shape: len(shape) == 2)
    for name, shape in shapes.items():
        if few(name, shape) or table(name, embeddings):
            groups["no_decay"].append(name)
        elif muon and matrix(name, shape):
            groups["muon"].append(name)
        else:
            groups["decay"].append(name)
    return groups


@mutant(ID, default_case=plain())
def by_the_word_norm(shapes, **options):
    "By name: norm and bias."
    return sorted_out(shapes, few=lambda name, shape: "norm" in name or name.endswith("bias"), **options)


@mutant(ID, default_case=plain())
def one_row_is_a_vector(shapes, **options):
    "A size of 1 is no axis."
    return sorted_out(shapes, few=lambda name, shape: sum(n != 1 for n in shape) < 2, **options)


@mutant(ID, default_case=lambda: (({"a.weight": (4, 4), "b.weight": (4, 8)},), {}))
def everything_decays(shapes, **options):
    "One group."
    return sorted_out(shapes, few=lambda name, shape: False, table=lambda name, words: False, **options)


@mutant(ID, default_case=plain())
def tables_decay(shapes, **options):
    "nanoGPT's: by axes alone."
    return sorted_out(shapes, table=lambda name, words: False, **options)


@mutant(ID, default_case=plain())
def embeddings_ignored(shapes, *, embeddings=TABLES, **options):
    "Always the usual names."
    return sorted_out(shapes, embeddings=TABLES, **options)


@mutant(ID, default_case=plain())
def parts_of_words(shapes, **options):
    "`in`: 'unwte' has a 'wte'."
    return sorted_out(shapes, table=lambda name, words: any(w in name for w in words), **options)


@mutant(ID, default_case=plain())
def last_component_alone(shapes, **options):
    "Only the last component is looked at."
    return sorted_out(shapes, table=lambda name, words: name.split(".")[-1] in words, **options)


@mutant(ID, default_case=plain(muon=True))
def muon_takes_tables(shapes, *, muon=False, **options):
    "Every matrix goes to Muon."
    if not muon:
        return sorted_out(shapes, **options)
    groups = sorted_out(shapes, muon=True, **options)
    tables = [n for n in groups["no_decay"] if len(shapes[n]) == 2]
    return {**groups, "no_decay": [n for n in groups["no_decay"] if n not in tables], "muon": groups["muon"] + tables}


@mutant(ID, default_case=plain(muon=True))
def muon_takes_all_with_axes(shapes, **options):
    "Two axes or more."
    return sorted_out(shapes, matrix=lambda name, shape: True, **options)


@mutant(ID, default_case=plain())
def muon_ignored(shapes, *, muon=False, **options):
    "muon is accepted, its group stays empty."
    return sorted_out(shapes, muon=muon, matrix=lambda name, shape: False, **options)


@mutant(ID, default_case=plain())
def sorted_by_name(shapes, **options):
    "Groups in the order of the alphabet."
    return {k: sorted(v) for k, v in sorted_out(shapes, **options).items()}


@mutant(ID, default_case=plain())
def muon_in_two_groups(shapes, **options):
    "Muon's matrices decay as well."
    groups = sorted_out(shapes, **options)
    return {**groups, "decay": [n for n in shapes if n in groups["decay"] + groups.get("muon", [])]}


@mutant(ID, default_case=plain())
def majority_rules(shapes, **options):
    "Where most parameters are vectors, all are treated so."
    most = 2 * sum(len(s) < 2 for s in shapes.values()) > len(shapes)
    return sorted_out(shapes, few=lambda name, shape: most or len(shape) < 2, **options)
