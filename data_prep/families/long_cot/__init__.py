"""RLMT (arXiv 2509.20357): traces for SFT, prompts for online RL, and base models with a thinking-format prompt."""
