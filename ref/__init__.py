"""Closedform: modern deep-learning algorithms as a specification that runs.

One file is one algorithm; its laws stand beside it in `<name>_laws.py`. `ref.spec` is the registry,
`ref.conform` judges implementations by the laws, `ref.cli` is the `closedform` command.
"""

__version__ = "0.1.0"
