"""Steps of the mini world."""

STEPS = {"curriculum": "data_prep.families.mini.curriculum:Curriculum"}
