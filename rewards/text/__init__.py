"""Rewards on texts: extraction of the graded part, tokenisation, n-grams, comparison with references."""
