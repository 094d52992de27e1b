"""Code skill-mix: questions about tuples of skills, their tests, and what makes a question valid.

skills: the list of skills, and tuples of them. synthesis: questions and tests from an endpoint. cases: tests as data.
validity: a question judged by execution. questions: files of questions, and of samples, as rows.
"""
