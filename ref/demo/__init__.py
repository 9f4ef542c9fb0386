"""The first run: a small language model trained on real text beside honest baselines."""
