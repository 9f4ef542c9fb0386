"""Attention: scaled dot-product, its online and tiled forms, and the rules of who sees whom."""
