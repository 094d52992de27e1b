"""The harness's own evaluator on given answers, as the reference for our steps. Runs in the environment lm_eval.

python lm_eval_itself.py TASKS_FOLDER ROWS.jsonl task…        prints {task: {"metric,filter": value}}
"""

import json
import sys

from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager


class Canned(LM):
    """Returns a given answer for each prompt."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def apply_chat_template(self, messages, add_generation_prompt=True):
        return json.dumps(messages)

    @property
    def tokenizer_name(self):
        return "canned"

    def generate_until(self, requests):
        return [self.answers[request.args[0]] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


folder, rows, *names = sys.argv[1:]
with open(rows) as lines:
    answers = {json.dumps(row["prompt"]): row["said"] for row in map(json.loads, lines)}
manager = TaskManager(include_path=folder, include_defaults=False)
found = simple_evaluate(
    Canned(answers), tasks=names, task_manager=manager, apply_chat_template=True, fewshot_as_multiturn=True,
    bootstrap_iters=0,
)  # fmt: skip
print(json.dumps({name: {k: v for k, v in found["results"][name].items() if "," in k} for name in names}))
