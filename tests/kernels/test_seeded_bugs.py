"""Each wrong line that a kernel carries as a switch is killed by its stored case, which the kernel passes."""

import re

import pytest

from backends.kernels.build import SOURCES
from tests.kernels.attention_run import judge
from tests.kernels.seeded_bugs import BUGS


@pytest.mark.parametrize("number", BUGS, ids=lambda n: f"{n}-{BUGS[n].words.replace(' ', '-')}")
def test_killed(number):
    bug = BUGS[number]
    gradients = bug.level != "L2"
    assert not judge(bug.killer, bug.level, gradients=gradients)
    assert judge(bug.killer, bug.level, number, gradients)


def test_the_list_is_whole():
    text = "\n".join(p.read_text() for p in SOURCES.glob("*.cu*"))
    switches = {int(n) for n in re.findall(r"(?:SEEDED\(|BUG [!=]= )(\d+)", text)}
    assert switches == set(BUGS)
    assert sum(bug.level == "L1" for bug in BUGS.values()) >= 10
    assert sum(bug.level == "L2" for bug in BUGS.values()) >= 12
