"""Models composed of the parts below, read top to bottom."""
