"""The command line: tables for people, stable JSON for programs, exit status 0, 1, 2."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from ref.cli.app import app

RIGHT = """
    import numpy as np

    def attention(q, k, v, *, mask=None):
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
        keep = np.ones((q.shape[-2], k.shape[-2]), bool) if mask is None else mask
        seen = keep.any(-2)[..., None]
        k, v = np.where(seen, k, 0), np.where(seen, v, 0)
        s = np.where(keep, q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]), -np.inf)
        m = np.max(s, -1, keepdims=True, initial=-1e300)
        p = np.exp(s - m)
        return p @ v / np.maximum(p.sum(-1, keepdims=True), 1e-300).astype(p.dtype)
"""
WRONG = """
    import numpy as np

    def attention(q, k, v, *, mask=None, softcap=None):
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
        s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
        if mask is not None:
            s = np.where(mask, s, -np.inf)
        if softcap is not None:
            s = softcap * np.tanh(s / softcap)
        m = np.max(s, -1, keepdims=True, initial=-np.inf)
        p = np.exp(s - np.where(np.isinf(m), 0, m))
        total = p.sum(-1, keepdims=True)
        return p / np.where(total == 0, 1, total) @ v
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))

    def invoke(*args):
        return CliRunner().invoke(app, list(args))

    invoke.write = write
    return invoke


def test_a_wrong_function_is_caught_by_name_with_its_thread_and_five_lines(run):
    run.write("softcap_after_mask", WRONG)
    path = "softcap_after_mask:attention"
    done = run("check", "attention.sdpa", path, "--examples", "30", "--dtype", "float64")
    assert done.exit_code == 1
    for said in ("masked_keys_are_invisible", "mask_then_cap", "onnx#7865", "replay(", "so left at its default"):
        assert said in done.stdout


def test_the_five_lines_replay_the_failure(run):
    run.write("softcap_after_mask_2", WRONG)
    from ref.conform.check import check, five_lines
    from ref.conform.expect import LawBroken

    report = check("attention.sdpa", "softcap_after_mask_2:attention", examples=12, dtype="float64")
    failed = [f for f in report.findings if f.outcome.verdict == "failed"]
    assert failed
    for finding in failed:
        with pytest.raises(LawBroken):
            exec(five_lines(finding, report.target), {})


def test_a_right_function_written_another_way_conforms(run):
    run.write("right_attention", RIGHT)
    done = run("check", "attention.sdpa", "right_attention:attention", "--json", "--examples", "15")
    assert done.exit_code == 0, done.stdout
    report = json.loads(done.stdout)
    assert set(report) == {"id", "target", "verdict", "laws"}
    assert report["verdict"] == "conforms"
    assert {x["verdict"] for x in report["laws"]} == {"passed", "not_applicable"}
    assert all(set(x) == {"law", "verdict", "case", "error", "bound", "thread"} for x in report["laws"])


@pytest.mark.parametrize(
    "args, said",
    [
        (("check", "attention.spda", "m:f"), "attention.sdpa"),
        (("show", "attention.spda"), "attention.sdpa"),
        (("verify", "attention.spda"), "attention.sdpa"),
        (("check", "attention.sdpa", "no_colon"), "module:function"),
        (("check", "attention.sdpa", "no_such_module_x:f"), "no_such_module_x"),
        (("check", "attention.sdpa", "math:sqr"), "sqrt"),
        (("check", "attention.sdpa", "math:pi"), "not a function"),
        (("verify", "--backend", "torch"), "torch"),
        (("verify", "--form", "fast"), "fast"),
        (("check", "attention.sdpa", "math:sqrt", "--dtype", "int8"), "int8"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(run, args, said):
    done = run(*args)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_target_whose_package_we_hide_gets_one_line(run, tmp_path):
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "mine.py").write_text("def f(q, k, v): return q")
    run.write("imports_its_own_ref", "from ref.mine import f")
    for path in ("imports_its_own_ref:f", "ref.mine:f"):
        done = run("check", "attention.sdpa", path)
        assert done.exit_code == 2
        assert "'ref' of its own" in done.stderr and done.stderr.count("\n") == 1


def test_list_json_is_stable(run):
    entries = json.loads(run("list", "--json").stdout)
    sdpa = next(e for e in entries if e["id"] == "attention.sdpa")
    assert set(sdpa) == {"id", "family", "title", "source", "forms", "backends", "laws", "mutants"}
    assert set(sdpa["laws"][0]) == {"id", "statement", "closed_form", "needs", "kills", "passes_null"}
    mutant = next(m for m in sdpa["mutants"] if m["name"] == "mask_then_cap")
    assert mutant == {"name": "mask_then_cap", "killed_by": ["L7"], "thread": "onnx#7865"}


def test_verify_json_is_stable_and_passes(run):
    done = run("verify", "attention.sdpa", "--json", "--examples", "16")
    rows = json.loads(done.stdout)
    assert done.exit_code == 0, [r for r in rows if not r["passed"]]
    keys = {"id", "law", "backend", "form", "dtype", "passed", "examples", "worst_error", "bound", "seconds"}
    assert all(set(r) == keys and r["passed"] for r in rows)
    assert {r["dtype"] for r in rows} == {"float64", "float32"}
    assert all(r["bound"] is None for r in rows if r["law"] in ("L8", "L17"))


def test_show_joins_header_docstring_laws_and_mutants(run):
    text = run("show", "attention.sdpa").stdout
    for said in ("1706.03762", "C3", "Parameters", "closed form", "gqa_tile", "jax-js#180"):
        assert said in text


GRADIENTS = """
    import numpy as np
    from ref.attention.sdpa import sdpa

    def attention(q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
        return np.asarray(sdpa(q, k, v, mask=mask, bias=bias, softcap=softcap, scale=scale))

    def attention_vjp(g, q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
        R, a = q.shape[-3] // k.shape[-3], q.shape[-1] ** -0.5 if scale is None else scale
        keep = np.ones((q.shape[-2], k.shape[-2]), bool) if mask is None else mask
        kk, vv = (np.repeat(np.where(np.isfinite(x), x, 0), R, axis=-3) for x in (k, v))
        s = q @ np.swapaxes(kk, -1, -2) * a
        s = s if softcap is None else softcap * np.tanh(s / softcap)
        x = np.where(keep, s + (0 if bias is None else bias), -np.inf)
        m = np.max(x, -1, keepdims=True, initial=-np.inf)
        p = np.exp(x - np.where(np.isinf(m), 0, m))
        total = p.sum(-1, keepdims=True)
        p = p / np.where(total == 0, 1, total)
        dp = g @ np.swapaxes(vv, -1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * a
        if softcap is not None:
            ds = ds * SLOPE
        group = lambda x: x.reshape(*x.shape[:-3], k.shape[-3], R, *x.shape[-2:]).sum(-3)
        dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g
        return {"q": ds @ kk, "k": group(dk), "v": group(dv)}
"""


@pytest.mark.parametrize("slope, verdict", [("(1 - (s / softcap) ** 2)", 0), ("1.0", 1)])
def test_gradients_beside_a_function_are_judged(run, slope, verdict):
    name = f"own_gradients_{verdict}"
    run.write(name, GRADIENTS.replace("SLOPE", slope))
    options = ("--grads", "--json", "--examples", "20", "--dtype", "float64")
    done = run("check", "attention.sdpa", f"{name}:attention", *options)
    report = json.loads(done.stdout)
    assert done.exit_code == verdict, [x for x in report["laws"] if x["verdict"] == "failed"]
    failed = {x["law"] for x in report["laws"] if x["verdict"] == "failed"}
    assert failed == ({"L13", "L14"} if verdict else set())
