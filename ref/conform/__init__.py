"""Judging implementations by the laws: ours, a mutant, a null, or somebody else's function."""
