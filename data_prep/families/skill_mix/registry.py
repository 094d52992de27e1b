"""Steps of the skill_mix family."""

STEPS = {
    "skill_tuples": "data_prep.families.skill_mix.skills:SkillTuples",
    "synthesize": "data_prep.families.skill_mix.synthesis:Synthesize",
    "verify_questions": "data_prep.families.skill_mix.validity:VerifyQuestions",
    "questions": "data_prep.families.skill_mix.questions:Questions",
}
