"""The `closedform` command."""


def main():
    """Run the command; without the `check` extra, say so in one line and leave with 2."""
    import sys

    try:
        from ref.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("ref", "autodiff", "backends"):
            raise
        print(f"closedform: {error.name} is not installed; pip install 'closedform[check]'", file=sys.stderr)
        sys.exit(2)
    app()
