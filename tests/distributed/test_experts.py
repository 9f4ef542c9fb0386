"""Experts over ranks: what does not fit is named, and nobody's tokens is no fault."""

import numpy as np
import pytest

from backends.communicators import ThreadWorld
from ref.distributed.expert_parallel import expert_parallel
from ref.distributed.expert_routing import expert_routing

X, R = np.ones((2, 3, 2)), np.ones((2, 2, 2))
UP, DOWN = np.ones((2, 1, 2, 4)), np.ones((2, 1, 4, 2))


def call(x=X, router=R, up=UP, down=DOWN, **options):
    return expert_parallel(ThreadWorld(2), x, router, up, down, **options)


@pytest.mark.parametrize(
    ("run", "kind", "said"),
    [
        (lambda: call(router=np.ones((2, 2, 3))), ValueError, "router has E=3 experts, 2 ranks have e=1 each"),
        (lambda: call(up=np.ones((2, 1, 3, 4))), ValueError, r"up has d=3, x\[T d\] has d=2|up.*d=3.*d=2"),
        (lambda: call(down=np.ones((2, 2, 4, 2))), ValueError, "down has e=2"),
        (lambda: call(X.astype(np.float32)), TypeError, "float arrays must share a dtype"),
        (lambda: call(k=3), ValueError, "expert_routing: k=3, .*E=2 experts; needed 1 <= k <= E"),
        (lambda: expert_routing(np.ones((2, 2)), capacity_factor=-1.0), ValueError, "capacity_factor=-1.0"),
        (lambda: expert_routing(np.ones((2, 2)), capacity_factor=np.nan), ValueError, "capacity_factor=nan"),
        (lambda: expert_routing(np.ones(2)), ValueError, "probs has shape"),
        (lambda: expert_routing(np.ones((2, 2), int)), TypeError, "must be float"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(run, kind, said):
    with pytest.raises(kind, match=said):
        run()


def test_no_tokens_at_all():
    assert call(np.ones((2, 0, 2))).shape == (2, 0, 2)
