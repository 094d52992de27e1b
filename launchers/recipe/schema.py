"""What a recipe may say: the schema, and the vocabulary that all trainers share.

Paths, batches and trainer keys are checked elsewhere (preflight, backends); here live names, types and
ranges. `python -m launchers schema` writes the JSON schema that editors complete keys from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from launchers.envs import REPO

Positive = Annotated[int, Field(gt=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
ControlName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,63}$")]  # names a folder and an evaluation


class Strict(BaseModel):
    """Unknown keys are refused, and a number is not taken for a word."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning."""

    rank: Positive = 8
    alpha: Positive = 16
    dropout: Share = 0.0
    targets: list[str] = ["all"]
    """Module names, or "all" linear layers."""


class Train(Strict):
    """Training, in words that every trainer is given in its own keys."""

    global_batch: Positive
    """Sequences per optimiser step, over all GPUs and accumulation. In online RL: completions, samples of a prompt
    counted each."""
    micro_batch: Positive
    """Sequences per GPU per forward pass. Gradient accumulation follows from it, the global batch and the GPUs."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the learning rate after warm-up."""
    min_learning_rate_ratio: Share = 0.0
    """Where a cosine ends, as a share of the peak."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps spent warming up."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the data. Give `epochs` or `steps`."""
    steps: Positive | None = None
    """Optimiser steps; in online RL rollout steps, of rollout.prompts × rollout.samples / global_batch updates each.
    Give `epochs` or `steps`."""
    max_length: Positive | None = None
    """Tokens per sequence, prompt and completion together; what is longer is cut. In online RL it is the sum of
    rollout.max_prompt_length and rollout.max_response_length."""
    packing: bool = False
    """Several rows in one sequence of max_length, without attention between them: a batch then holds more rows."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    lora: Lora | None = None
    """Low-rank adapters; null trains all weights."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    save_every: Positive | None = None
    """Steps between checkpoints to resume from; null saves at the end only."""
    keep_checkpoints: Positive = 2
    log_every: Positive = 1
    """Steps between lines of the loss curve."""


class Preference(Strict):
    """DPO and its kin: what is made of a pair of completions."""

    loss: Literal["sigmoid", "hinge", "ipo", "simpo", "orpo"] = "sigmoid"
    """sigmoid is DPO's own. simpo and orpo have no reference model, which is the initial model otherwise."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: strength of the KL constraint to the reference model."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the pairs that are taken to be the wrong way round; of sigmoid only."""


class Rollout(Strict):
    """Online RL: what the policy is asked, and how it samples."""

    prompts: Positive
    """Prompts per step."""
    samples: Positive = 8
    """Completions per prompt: the group."""
    max_prompt_length: Positive
    """Tokens; longer prompts are left out, and counted."""
    max_response_length: Positive
    """Tokens; a completion that reaches them is truncated."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = -1
    """-1 samples from all tokens."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """transformers is for CPUs whose memory is short."""
    tensor_parallel: Positive = 1
    """GPUs per rollout engine."""
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of a GPU's memory, what the rollout engine may hold beside the trainer."""


class Reward(Strict):
    """A reward by name with its parameters (`python -m rewards list`)."""

    name: str
    params: dict[str, Any] = {}
    acc: str | None = None
    """The part of a combined reward that is reported as accuracy."""
    max_timeouts: Share = 0.05
    """Share of the last 1,000 completions that may time out; limits.errors says how many may fail."""
    workers: Positive = 8
    """Processes that grade."""


class RewardModel(Strict):
    """A reward model's server beside the parts of a run that ask it. Data steps and rewards name its address as
    `${reward_model.url}`."""

    model: str
    """A Hub id (owner/name) or a local folder, of a sequence-classification model."""
    revision: str | None = None
    """The Hub revision of the model, a commit."""
    placement: Literal["own_gpus", "endpoint", "colocated"] = "own_gpus"
    """own_gpus: the launcher serves it with vLLM, on GPUs of the node that online RL leaves free. endpoint: a server
    that runs already. colocated: the trainer serves it on its own GPUs, between rollouts and updates; data, second
    judge and evaluation are served as with own_gpus."""
    gpus: Positive = 1
    """GPUs of one engine."""
    url: str | None = None
    """The address of an endpoint."""
    template: str | None = None
    """A file with the chat template, where the model's tokenizer has none."""


SERVICES = ("reward_model", "second_judge")  # keys of Recipe that are servers beside parts of a run


class Critic(Strict):
    """The value model of PPO, of the policy's architecture and initial weights."""

    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps that train only the critic."""


class Algorithm(Strict):
    """Online RL: the policy loss and its advantages (the trainer's plugin says which is whose)."""

    loss: Literal["ppo_clip", "clip_higher", "sequence_mean", "dr_grpo", "gspo"] = "ppo_clip"
    advantages: Literal["none", "group", "group_then_batch", "gae"] = "group"
    """Scores less their group's mean; group: also over its standard deviation; gae: with a critic."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    kl: Literal["none", "reward", "loss"] = "none"
    """Where the distance to the initial model is charged: k1 in the reward, or k3 in the loss."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    truncated: Literal["keep", "mask", "penalise"] = "keep"
    """Completions that reached max_response_length: kept, without influence, or with truncated_penalty added."""
    truncated_penalty: float = 0.0
    correction: Literal["none", "token", "sequence"] = "none"
    """Importance weights of trainer over sampler in the loss, for each token or each completion."""
    correction_limit: Annotated[float, Field(gt=1)] = 2.0
    """Where those weights are truncated."""
    gamma: Share = 1.0
    lam: Share = 1.0
    """GAE's trade-off between bias (0) and variance (1)."""
    critic: Critic | None = None
    """Needed by gae, refused without."""


class Validation(Strict):
    """Online RL: the benchmarks of `eval`, graded by their own rewards while the policy trains."""

    every: Positive
    """Steps between validations; there is one before the first step, too."""
    samples: Positive = 1
    """Completions per prompt."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    limit: Positive | None = None
    """Prompts per benchmark, chosen by eval.seed; null takes all."""


class Stop(Strict):
    """Online RL: end a training early. Validations are means over the benchmarks, in their metric's unit (points of
    percent), and in its direction."""

    patience: Positive | None = None
    """Validations in a row without a gain of min_gain over the best before them."""
    min_gain: Annotated[float, Field(ge=0)] | None = None
    """Smallest gain that counts; without it 0.5 points of percent. Other metrics have no default."""
    collapse: Annotated[float, Field(gt=0)] | None = None
    """How much worse than the best validation is too much."""
    idle: Positive | None = None
    """Steps in a row in which no group's rewards differ: there is nothing to learn from."""


Logger = Literal["file", "wandb", "tensorboard", "trackio", "mlflow"]


OURS = "ours"
HARNESSES = ("alpaca_eval", "lm_eval")  # modules of launchers/harnesses, environments of configs/envs


class Judge(Strict):
    """The model that harness alpaca_eval asks which of two answers is better, at an endpoint that speaks OpenAI's
    protocol and gives log-probabilities."""

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"
    """The variable that holds the key."""
    length_controlled: bool = True
    """Also the win rate at equal lengths, which the harness knows for its own questions only."""


class Eval(Strict):
    """Evaluation: generate on benchmarks and score with the reward that training uses, or by a harness."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names in configs/tasks; other names are tasks of `harness`, and <harness>/<task> one of that harness."""
    harness: Literal["ours", "lm_eval", "alpaca_eval"] = "ours"
    """Who grades the tasks that are not in configs/tasks. Completions are sampled alike for all of them."""
    metrics: dict[str, str] = {}
    """Task of lm_eval to the metric that counts, or metric,filter; by default its first ones."""
    judge: Judge | None = None
    """Of alpaca_eval."""
    paths: dict[str, str] = {}
    """Task name to a local file that replaces its download; of lm_eval a task file of its format."""
    n: Positive = 1
    """Samples per prompt."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Positive = 2048
    """Tokens per completion."""
    max_model_len: Positive | None = None
    """Prompt and completion together; null takes the model's own limit."""
    tensor_parallel: Positive = 1
    """GPUs that share one engine. As many engines work side by side as the machine's GPUs allow."""
    workers: Positive | None = None
    """Processes that grade programs; null takes two for each GPU, one on a CPU."""
    seed: Annotated[int, Field(ge=0)] = 0
    limit: Positive | None = None
    """Prompts per task, chosen by the seed; null takes all."""
    before: bool = False
    """Also evaluate the model that training starts from."""


class Limits(Strict):
    """When a run gives up instead of going on with too little."""

    bad_rows: Share = 0.02
    """Share of invalid rows that a data step accepts."""
    errors: Share = 0.02
    """Share of rows whose reward may fail or run out of time."""
    thoughts: Share = 0.05
    """Share of training rows whose thought max_length may truncate, or that may lack the marks of `thinking`."""


class Control(Strict):
    """What a control may change; everything else it shares with the recipe. The whole is validated once merged."""

    model: str | None = None
    revision: str | None = None
    data: str | None = None
    system_prompt: str | None = None
    train: dict[str, Any] = {}
    native: dict[str, Any] = {}


TRAINERS = sorted(
    path.stem for path in (REPO / "launchers" / "backends").glob("*.py") if (REPO / "templates" / path.stem).is_dir()
)


if TYPE_CHECKING:
    TrainerName = str
else:
    TrainerName = Literal[tuple(TRAINERS)]


class Variant(Strict):
    """What a recipe says to one of its trainers only."""

    hardware: str | None = None
    time_limit: str | None = None
    train: dict[str, Any] = {}
    native: dict[str, Any] = {}


class Recipe(Strict):
    """One recipe, resolved: `extends`, the scale's overlay and the overrides are already merged in."""

    extends: list[str] = []
    """Files laid under this one, in order; paths are relative to this file."""
    trainer: TrainerName
    """Who trains."""
    trainers: dict[TrainerName, Variant] = {}
    """Trainer to keys that are laid over the recipe where that trainer is the chosen one. `native` keys outside of it
    belong to the trainer that the recipe names."""
    method: Literal["sft", "dpo", "grpo", "ppo"]
    """What kind of training."""
    model: str
    """A Hub id (owner/name) or a local folder."""
    revision: str | None = None
    """The Hub revision of the model, a commit."""
    positions: Positive | None = None
    """Tokens per sequence where they may be more than the model's config says: rotary positions are extrapolated."""
    model_of: str | None = None
    """A recipe (family/name) that is done first, and whose trained model this one starts from; `model` then says what
    that was before."""
    zero: Literal["zero", "zero_nothink"] | None = None
    """The format into which a template of templates/chat prompts a base model; a copy with that template is trained."""
    hardware: str
    """A profile in configs/hardware."""
    site: str | None = None
    """A profile in configs/sites: Slurm partition, account, modules."""
    time_limit: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")] = "24:00:00"
    """Wall time asked of Slurm."""
    chain: bool = False
    """Whether a Slurm job that reaches its time limit goes on in a new one, from its last checkpoint."""
    data: str
    """A pipeline in this family's data.yaml, or a path to rows of your own."""
    system_prompt: str | None = None
    """A file in templates/prompts, without its ending; given to the rows of a `data` path and to benchmarks."""
    thinking: str | None = None
    """The thinking format of the completions (rewards/thinking.py): data steps (${thinking}), rewards and evaluation
    share it, and the rows are checked for it before training. null: completions are answers alone."""
    from_run: str | None = None
    """A finished online RL run, whose samples a data step reads as ${from_run}."""
    train: Train
    preference: Preference | None = None
    rollout: Rollout | None = None
    reward: Reward | None = None
    """Of online RL. Of another method only the reward `model`: how its evaluation scores answers."""
    reward_model: RewardModel | None = None
    second_judge: RewardModel | None = None
    """Another reward model, which scores the validation samples after online RL. Of the checkpoints that are kept, the
    one it scores highest becomes the trained model: the first reward model may have been over-optimised."""
    algorithm: Algorithm | None = None
    validation: Validation | None = None
    stop: Stop | None = None
    loggers: list[Logger] = ["file"]
    """Where training curves go. The file is always written: reports are drawn from it."""
    native: dict[str, Any] = {}
    """Keys of the trainer's own, passed through; null removes an inherited one."""
    eval: Eval | None = None
    expect: dict[str, float] = {}
    """Benchmark to the number that the original reports, in the benchmark's unit: accuracy in percent unless its task
    names another metric."""
    reference: dict[str, dict[str, float]] = {}
    """Other published systems: name to benchmark to number."""
    comparable: bool = True
    """Whether results may be held against `expect` (a mini run's may not)."""
    controls: dict[ControlName, Control] = {}
    """Runs to compare with: name to the keys that differ. Each is trained and evaluated like the recipe."""
    limits: Limits = Limits()
