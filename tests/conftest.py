"""How the tests run: hypothesis profiles, and the budgets of CPU seconds."""

import os

from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests import budgets

# The same examples at every commit; `make test-deep` draws new ones, and more.
settings.register_profile(
    "commit",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
)
settings.register_profile(
    "deep", max_examples=1000, database=None, deadline=None, print_blob=True
)
settings.load_profile(os.environ.get("CLOSEDFORM_PROFILE", "commit"))

# Hypothesis reads literals out of the project's own source and draws them: an edit anywhere would
# change every test's examples. There is no setting for it, so the source is taken away.
_NO_CONSTANTS = providers.Constants()
providers._get_local_constants = lambda: _NO_CONSTANTS


def pytest_configure(config):
    config.pluginmanager.register(budgets, "cpu-budgets")
