"""The floors of the house, and who breaks them: imports go down only.

    tests, bench > ref.cli, ref.demo > ref.conform > ref.<family> > ref.spec > autodiff > backends

Imports are read from the source, wherever they stand in it; nothing is imported.
"""

import ast
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

OURS = ("backends", "autodiff", "ref", "tests", "bench")
PACKAGES = ("backends", "autodiff", "ref")
CORE = {"numpy", "scipy", "array_api_compat"}

# What the core does not depend on -> the files that may import it as they load. Elsewhere in the
# packages the import stands inside the function that needs it.
ON_LOAD = {
    "hypothesis": ("*_laws.py", "ref/spec/cases*", "ref/conform/*"),
    "mpmath": ("*_laws.py", "ref/conform/*"),
    "pytest": ("ref/conform/*",),
    "rich": ("ref/cli/*", "ref/conform/*", "ref/demo/*"),
    "typer": ("ref/cli/*", "ref/demo/*"),
    "array_api_strict": ("backends/*strict*",),
    "cupy": ("backends/*cupy*",),
    "cupyx": ("backends/*cupy*",),
    "numba": tuple(f"backends/fused/compiled/{name}*" for name in ("_gates", "silu", "swiglu")),
    "mpi4py": (),
    "safetensors": (),
    "matplotlib": (),
    "sklearn": (),
    "gymnasium": (),
    "torch": (),
    "jax": (),
}
# These not even inside a function: what draws cases is the laws' alone.
NOWHERE_ELSE = {"hypothesis"}
# What the laws of a family share: no laws of its own, so laws may import it.
SHARED_LAWS = "common_laws"


class Import(NamedTuple):
    line: int
    name: str  # dotted and absolute; `from a import b` gives a.b
    on_load: bool


def imports_of(source, module, is_package):
    """Every import of a module, function bodies included."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found = []

    def visit(node, on_load):
        if isinstance(node, ast.Import):
            found.extend(Import(node.lineno, a.name, on_load) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.extend(Import(node.lineno, f"{stem}.{a.name}", on_load) for a in node.names)
        elif isinstance(node, ast.Call) and _named_module(node):
            found.append(Import(node.lineno, node.args[0].value, on_load))
        inside = on_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), True)
    return found


def _named_module(call):
    """True for import_module("a.b") and __import__("a.b"): an import by another spelling."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    constant = call.args and isinstance(call.args[0], ast.Constant)
    return name in ("import_module", "__import__") and constant and call.args[0].value[:1] != "."


def families(root):
    """The order of the families, as `ref/families.py` states it."""
    for node in ast.parse((root / "ref/families.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "FAMILIES":
            return ast.literal_eval(node.value)
    raise ValueError("ref/families.py: no FAMILIES = (...) found")


def floor_of(name, order):
    """Height of a module of ours; None for a part of `ref` that stands on no floor."""
    top, _, rest = name.partition(".")
    part = rest.split(".")[0]
    if top in ("tests", "bench"):
        return 1000
    if top != "ref":
        return PACKAGES.index(top)
    if part in order:
        return 4 + order.index(part)
    return {"spec": 3, "conform": 998, "cli": 999, "demo": 999}.get(part)


def _laws_in(name, root):
    """The module of laws that a dotted name passes through; None for a function `load_laws`."""
    parts = name.split(".")
    for n, part in enumerate(parts, 1):
        if part.endswith("_laws") and root.joinpath(*parts[:n]).with_suffix(".py").exists():
            return ".".join(parts[:n])
    return None


def breaches(root):
    """Sentences `file:line: what is wrong`, for every import that the house forbids."""
    order = families(root)
    found = [
        f"{path.relative_to(root).as_posix()}:{line}: {wrong}"
        for top in OURS
        for path in sorted((root / top).rglob("*.py"))
        for line, wrong in _breaches_in(path, root, order)
    ]
    return list(dict.fromkeys(found))


def _breaches_in(path, root, order):
    relative = path.relative_to(root)
    is_package = path.name == "__init__.py"
    parts = relative.parent.parts if is_package else relative.with_suffix("").parts
    module = ".".join(parts)
    in_ref_root = parts[0] == "ref" and len(relative.parts) == 2
    floor = 2 if in_ref_root else floor_of(module, order)
    if floor is None:
        yield 1, f"ref.{parts[1]} stands on no floor; name it in ref/families.py"
        return
    if _laws_in(module, root):
        floor = max(floor, floor_of("ref.spec", order))
    for line, name, on_load in imports_of(path.read_text(), module, is_package):
        top = name.partition(".")[0]
        if top in OURS:
            wrong = _wrong_of_ours(module, floor, name, root, order)
        elif parts[0] in PACKAGES:
            wrong = _wrong_of_others(relative.as_posix(), top, on_load)
        else:
            wrong = None
        if wrong:
            yield line, wrong


def _wrong_of_ours(module, floor, name, root, order):
    laws = _laws_in(name, root)
    if laws and not (laws.endswith("." + SHARED_LAWS) and _laws_in(module, root)):
        return f"{module} imports {laws}; laws are imported by the runner alone, by name"
    target = floor_of(name, order)
    if target is None:
        # `ref` itself, or a name or module at its root.
        known = name == "ref" or not (root / "ref" / name.split(".")[1]).is_dir()
        target = 2 if known else None
    if target is None:
        return f"{module} imports {name}, which stands on no floor; name it in ref/families.py"
    return f"{module} imports {name}, which stands above it" if target > floor else None


def _wrong_of_others(relative, top, on_load):
    if top in sys.stdlib_module_names or top in CORE:
        return None
    if top not in ON_LOAD:
        return f"{top} is no dependency of the packages"
    if any(fnmatch(relative, pattern) for pattern in ON_LOAD[top]):
        return None
    if top in NOWHERE_ELSE:
        return f"{top} is imported in {', '.join(ON_LOAD[top])} alone"
    return f"{top} is imported where it is used, not on load" if on_load else None


def root_of_house():
    """The folder that holds the packages."""
    return Path(__file__).resolve().parents[2]
