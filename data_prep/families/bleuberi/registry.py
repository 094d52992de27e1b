"""Steps of the bleuberi family."""

STEPS = {"reference_pool": "data_prep.families.bleuberi.pool:Pool"}
