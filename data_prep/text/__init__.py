"""Texts compared: their words and numbers, questions that they repeat, near duplicates."""
