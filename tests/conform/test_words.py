"""`check` names the bug of an algorithm whose result holds words: a schedule of actions."""

from ref.conform.check import check


def from_the_start(steps, snaps):
    out = [("snapshot", 0, 0)] if steps > 1 else []
    for i in range(int(steps) - 1, 0, -1):
        out += [("advance", 0, i), ("turn", i, i + 1), ("restore", 0, 0)]
    return [*out, ("discard", 0, 0), ("turn", 0, 1)] if steps > 1 else [("turn", 0, 1)]


def test_the_bug_of_a_schedule_is_named():
    report = check("training.revolve", "tests.conform.test_words:from_the_start", examples=20)
    assert report.verdict == "broken"
    assert "always_from_the_start" in {f.bug for f in report.findings}
    assert check("training.revolve", "ref.training.revolve:revolve", examples=10).verdict == "conforms"
