"""Collectives over send and receive, and what is built on them."""
