"""Runs torchtune's stock recipes in torchtune's environment, with extensions.

    <torchtune python> -m launchers.plugins.torchtune.train FOLDER

stock.py      subclasses of the stock recipes with our batches, resuming and logging; the training loop is unchanged
batches.py    assignment of rows to steps (without torch, because the launcher's tests import it)
checkpoints.py, schedule.py, tokenizer.py, metrics.py    components that the rendered config refers to
check.py      `tune validate` and additional checks of keys
cpu.py        patches that the recipes need without CUDA
"""
