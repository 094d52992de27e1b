"""Steps of the mini family."""

STEPS = {"curriculum": "data_prep.families.mini.curriculum:Curriculum"}
