"""Code skill-mix: questions about tuples of skills, their tests, and the verification of questions.

skills: the skills and tuples of them. synthesis: questions and tests written by a model. cases: tests as data.
validity: verification by execution. questions: files of questions, and of samples, as rows.
"""
