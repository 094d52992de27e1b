"""What runs in torchtune's own environment: torchtune's stock recipes, with what they lack put in from outside.

    <torchtune python> -m launchers.plugins.torchtune.train FOLDER

stock.py      the recipe's own file, whose training loop stays as it is; ours are its batches, its resuming, its log
batches.py    which rows make which step (no torch: the launcher's tests read it)
checkpoints.py, schedule.py, tokenizer.py, metrics.py    components that the rendered config names
check.py      `tune validate`, and the keys that it misses
cpu.py        what the distributed recipes need where there is no CUDA
"""
