"""Steps of the skill_mix family."""

STEPS = {
    "skill_tuples": "data_prep.families.skill_mix.steps.skill_tuples:SkillTuples",
    "synthesize": "data_prep.families.skill_mix.steps.synthesize:Synthesize",
    "verify_questions": "data_prep.families.skill_mix.steps.verify_questions:VerifyQuestions",
    "questions": "data_prep.families.skill_mix.steps.questions:Questions",
    "generations": "data_prep.families.skill_mix.steps.generations:Generations",
}
