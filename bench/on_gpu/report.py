"""The lines that end a run: what went wrong, then ratios."""

__all__ = ["lines"]


def lines(rows):
    """Short lines from all rows; ratios last."""
    yield ""
    yield from _troubles(rows)
    for row in rows:
        if row.get("what") in ("copy", "gemm") and "ms" in row and row["ms"] is not None:
            yield f"{row['what']}: " + ", ".join(f"{row[k]:.0f} {k}" for k in ("gb_s", "tflop_s") if k in row)
    yield from _memory(rows)
    for direction in ("forward", "backward"):
        yield from _ratios([row for row in rows if row.get("direction") == direction], direction)


def _troubles(rows):
    bad = [row for row in rows if row.get("status") in ("wrong", "failed", "timeout")]
    right = sum(row.get("status") == "right" for row in rows)
    yield f"{right} checks right, {sum(row['status'] == 'wrong' for row in bad)} wrong"
    for row in bad:
        yield "  " + " ".join(f"{k}={v}" for k, v in row.items() if k != "said")
    missing = dict.fromkeys(f"{row.get('engine') or row.get('what') or row.get('kernel')}: {row['missing']}"
                            for row in rows if "missing" in row)  # fmt: skip
    yield from (f"  not measured: {text}" for text in missing)


def _memory(rows):
    for row in rows:
        if row.get("group") == "time_rows" and row.get("ms") is not None:
            share = f"{row['of_copy']:.0%} of the copy" if row.get("of_copy") else ""
            yield f"{row['kernel']:28} {row['gb_s']:7.0f} GB/s  {share}"


def _ratios(rows, direction):
    """A line a case: each engine's speed as a ratio to torch's best."""
    cases = dict.fromkeys((row["d"], row["causal"], row["S"]) for row in rows)
    for d, causal, S in sorted(cases):
        found = {row["engine"]: row["ms"] for row in rows
                 if (row["d"], row["causal"], row["S"]) == (d, causal, S) and row.get("ms")}  # fmt: skip
        best = min((ms for name, ms in found.items() if name.startswith("torch")), default=None)
        if not found:
            continue
        base = best or min(found.values())
        parts = [f"{name.replace('_ATTENTION', '')} {base / ms:.2f}" for name, ms in found.items()]
        unit = "torch's best" if best else "the best here"
        case = f"{direction} d={d} {'causal' if causal else 'full  '} S={S:5d}"
        yield f"{case} ({unit} = 1, {base:.3f} ms): {', '.join(parts)}"
