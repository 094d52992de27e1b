"""Texts compared with references: the part that counts, tokens, n-grams, reference tables."""
