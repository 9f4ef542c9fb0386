"""Finite Markov decision processes: models, dynamic programming, Monte Carlo, temporal differences."""
