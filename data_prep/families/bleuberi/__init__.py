"""BLEUBERI (arXiv 2505.11080): prompts whose answers are least like their references, and training on likeness."""
