"""BLEUBERI (arXiv 2505.11080): selects prompts with low reference similarity and trains on that similarity."""
