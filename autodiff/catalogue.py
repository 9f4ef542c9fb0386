"""PRIMITIVES.md, made from the table of primitives: `python -m autodiff.catalogue` renews it.

A row's properties are read from the row. Its edges are the lines E.. of the rules' docstrings that
begin with its name; the extensions it needs of a backend are those that its forward names.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from autodiff import arrays, convolution, linalg, ops, special
from autodiff.primitive import TABLE, Primitive
from backends import EXTENSIONS, NAMES

PATH = Path(__file__).with_name("PRIMITIVES.md")

FORWARD_MODE = {
    "elementwise": "the rule, at t",
    "linear": "f(t)",
    "multilinear": "f with one t, summed",
    "derived": "transpose of the rule",
}

HEAD = """# Primitives

Made from `autodiff.primitive.TABLE` by `make table`; do not edit. Backends: {backends}; where a row
needs more than the array API standard, the last column says which listed extension.

- Kept: what the tape holds for the cotangent of each input; `z` is the output, `-` nothing.
- Forward mode: how J t is made from the tangent t. "transpose of the rule" is d/dg <J^T g, t>.
- Every row is held to every law of tests/autodiff: duality, differences, Taylor's order, double
  backward, a symmetric Hessian, tape bytes, writes in place, three precisions, two backends.

"""


def edges() -> dict[str, str]:
    """Label -> sentence, from the docstrings of the modules that hold the rules."""
    found: dict[str, str] = {}
    modules = {inspect.getmodule(inspect.unwrap(row.vjp)) for row in TABLE.values()}
    for module in modules:
        for label, text in re.findall(r"^  (E\d+)  ((?:.|\n(?=       ))*)", module.__doc__ or "", re.M):
            if label in found:
                raise ValueError(f"catalogue: {label} stands twice, in {module.__name__} too")
            found[label] = " ".join(text.split())
    return dict(sorted(found.items(), key=lambda item: int(item[0][1:])))


def subjects(sentence: str) -> list[str]:
    """The primitives that a sentence begins with."""
    names = []
    for word in re.findall(r"\w+|,", sentence):
        if word in TABLE:
            names.append(word)
        elif word not in (",", "and"):
            break
    return names


def kept(row: Primitive) -> str:
    if row.saves == "others":
        return "the others"
    inputs = len(row.saves)
    names = lambda keep: ", ".join("z" if k >= inputs else row.labels[k] for k in keep)  # noqa: E731
    if not any(row.saves):
        return "-"
    if inputs == 1:
        return names(row.saves[0])
    pairs = zip(row.labels, row.saves, strict=False)
    return "; ".join(f"d{label}: {names(keep) or '-'}" for label, keep in pairs)


def needs(row: Primitive) -> list[str]:
    """Extensions of the backend that the forward names."""
    if row._forward is None:
        return [row.name] if row.name in EXTENSIONS else []
    module = inspect.getmodule(inspect.unwrap(row._forward))
    seen: set[str] = set()
    waiting = [inspect.unwrap(row._forward)]
    used: set[str] = set()
    while waiting:
        code = waiting.pop().__code__
        seen.add(code.co_name)
        words = set(code.co_names)
        for constant in code.co_consts:
            words |= set(getattr(constant, "co_names", ()))
        used |= words & set(EXTENSIONS)
        local = (getattr(module, w, None) for w in words - seen)
        waiting += [f for f in map(inspect.unwrap, local) if inspect.isfunction(f)]
    return sorted(used)


def compositions() -> list[tuple[str, str]]:
    """(name, first sentence) of the documented functions that have no row of their own."""
    rows = []
    for module in (ops, linalg, special, arrays, convolution):
        short = module.__name__.split(".")[-1]
        for name, f in sorted(vars(module).items()):
            own = inspect.isfunction(f) and f.__module__ == module.__name__
            if own and f.__doc__ and name not in TABLE and name[0] != "_":
                rows.append((f"{short}.{name}", f.__doc__.strip().splitlines()[0]))
    return rows


def catalogue() -> str:
    """The whole file."""
    sentences = edges()
    said = {label: subjects(text) for label, text in sentences.items()}
    lines = [
        "| primitive | kind | kept | forward mode | edges | needs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in sorted(TABLE.items()):
        labels = ", ".join(label for label, names in said.items() if name in names)
        mode = "a rule of its own" if row.jvp else FORWARD_MODE[row.kind]
        extra = ", ".join(needs(row))
        lines.append(f"| `{name}` | {row.kind} | {kept(row)} | {mode} | {labels} | {extra} |")
    text = HEAD.format(backends=", ".join(NAMES)) + f"{len(TABLE)} rows.\n\n" + "\n".join(lines)
    text += "\n\n## Edges\n\n" + "\n".join(f"- **{k}** {v}" for k, v in sentences.items())
    text += "\n\n## Compositions\n\nMade of the rows above; no rule of their own.\n\n"
    text += "\n".join(f"- `{name}`: {first}" for name, first in compositions())
    return text + "\n"


if __name__ == "__main__":
    PATH.write_text(catalogue())
