"""Steps of the min_o1 family."""

STEPS = {"lim": "data_prep.families.min_o1.lim:Lim"}
