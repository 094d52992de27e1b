"""The recipe schema: keys shared by all trainers, with their types and ranges.

Paths, batch sizes and trainer-specific keys are checked in preflight and the backends.
`python -m launchers schema` prints the JSON schema that editors use for completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from launchers.envs import REPO

Positive = Annotated[int, Field(gt=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
ControlName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,63}$")]  # names a folder and an evaluation


class Strict(BaseModel):
    """Rejects unknown keys and implicit type conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Lora(Strict):
    """Low-rank adapters instead of full fine-tuning."""

    rank: Positive = 8
    alpha: Positive = 16
    dropout: Share = 0.0
    targets: list[str] = ["all"]
    """Module names, or "all" for every linear layer."""


class Train(Strict):
    """Training hyperparameters. Each backend translates them to its trainer's own keys."""

    global_batch: Positive
    """Sequences per optimiser step, over all GPUs and accumulation steps. In online RL: completions, not prompts."""
    micro_batch: Positive
    """Sequences per GPU per forward pass. Gradient accumulation is derived from it, global_batch and the GPU count."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate schedule after warm-up."""
    min_learning_rate_ratio: Share = 0.0
    """Final learning rate of a cosine schedule, as a fraction of the peak."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of all steps used for warm-up."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the data. Give `epochs` or `steps`."""
    steps: Positive | None = None
    """Optimiser steps; in online RL rollout steps, each with rollout.prompts × rollout.samples / global_batch updates.
    Give `epochs` or `steps`."""
    max_length: Positive | None = None
    """Tokens per sequence, prompt plus completion; longer sequences are truncated. In online RL it is the sum of
    rollout.max_prompt_length and rollout.max_response_length."""
    packing: bool = False
    """Pack several rows into one sequence of max_length, without attention between them. A batch then holds more
    rows."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    lora: Lora | None = None
    """LoRA adapters; null trains all weights."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    save_every: Positive | None = None
    """Steps between checkpoints; null saves only at the end."""
    keep_checkpoints: Positive = 2
    log_every: Positive = 1
    """Steps between logged points of the loss curve."""


class Preference(Strict):
    """Preference optimisation (DPO and variants): the loss on pairs of completions."""

    loss: Literal["sigmoid", "hinge", "ipo", "simpo", "orpo"] = "sigmoid"
    """sigmoid is the original DPO loss. simpo and orpo use no reference model; the others use the initial model."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: strength of the KL constraint to the reference model."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed probability that a pair's preference label is flipped; sigmoid only."""


class Rollout(Strict):
    """Online RL: rollout batch sizes, length limits and sampling parameters."""

    prompts: Positive
    """Prompts per step."""
    samples: Positive = 8
    """Completions per prompt (the group size)."""
    max_prompt_length: Positive
    """Tokens; longer prompts are dropped and counted."""
    max_response_length: Positive
    """Tokens; longer completions are truncated."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = -1
    """-1 disables top-k."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """transformers is for CPUs with little memory."""
    tensor_parallel: Positive = 1
    """GPUs per rollout engine."""
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Fraction of GPU memory that the rollout engine may use; the trainer shares the GPU."""


class Reward(Strict):
    """A reward by name with its parameters (`python -m rewards list`)."""

    name: str
    params: dict[str, Any] = {}
    acc: str | None = None
    """The component of a combined reward that is reported as accuracy."""
    max_timeouts: Share = 0.05
    """Fraction of the last 1,000 completions whose grading may time out; limits.errors is the limit for failures."""
    workers: Positive = 8
    """Grading processes."""


class RewardModel(Strict):
    """A reward model server, started for the parts of a run that use it. Data steps and rewards refer to its address
    as `${reward_model.url}`."""

    model: str
    """A Hub id (owner/name) or a local folder of a sequence-classification model."""
    revision: str | None = None
    """Hub revision of the model (a commit)."""
    placement: Literal["own_gpus", "endpoint", "colocated"] = "own_gpus"
    """own_gpus: the launcher serves it with vLLM on GPUs of the node that online RL does not use. endpoint: a server
    that is already running. colocated: the trainer serves it on its own GPUs, between rollouts and updates; data steps,
    the second judge and evaluation use a server as with own_gpus."""
    gpus: Positive = 1
    """GPUs per engine."""
    url: str | None = None
    """Address of the endpoint."""
    template: str | None = None
    """File with the chat template, if the model's tokenizer has none."""


SERVICES = ("reward_model", "second_judge")  # keys of Recipe that start a server


class Critic(Strict):
    """The value model of PPO, initialised from the policy's weights."""

    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Initial steps that train only the critic."""


class Algorithm(Strict):
    """Online RL: policy loss and advantages. policy_loss.py, of the trainer's plugins, lists which published method
    is which combination."""

    loss: Literal["ppo_clip", "clip_higher", "sequence_mean", "dr_grpo", "gspo"] = "ppo_clip"
    advantages: Literal["none", "group", "group_then_batch", "gae"] = "group"
    """none: score minus the group mean. group: also divided by the group's standard deviation. group_then_batch: group,
    then normalised over the whole rollout batch. gae: generalised advantage estimation with a critic."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    kl: Literal["none", "reward", "loss"] = "none"
    """Where the KL penalty to the initial model is applied: in the reward (k1 estimate) or in the loss (k3)."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    truncated: Literal["keep", "mask", "penalise"] = "keep"
    """Completions truncated at max_response_length: kept, masked out of the loss, or with truncated_penalty added to
    the reward."""
    truncated_penalty: float = 0.0
    correction: Literal["none", "token", "sequence"] = "none"
    """Importance weights (trainer over rollout engine probabilities) in the loss, per token or per completion."""
    correction_limit: Annotated[float, Field(gt=1)] = 2.0
    """Importance weights are truncated at this value."""
    gamma: Share = 1.0
    lam: Share = 1.0
    """GAE's λ: trade-off between bias (0) and variance (1)."""
    critic: Critic | None = None
    """Required for advantages: gae, an error otherwise."""


class Validation(Strict):
    """Online RL: validation on the benchmarks of `eval` during training, each graded by its own reward."""

    every: Positive
    """Steps between validations; there is also one before the first step."""
    samples: Positive = 1
    """Completions per prompt."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    limit: Positive | None = None
    """Prompts per benchmark, chosen by eval.seed; null uses all."""


class Stop(Strict):
    """Online RL: early stopping. The validation result is the mean over the benchmarks, in the unit of their metric
    (percentage points for accuracy); better means higher or lower as the metric says."""

    patience: Positive | None = None
    """Stop after this many consecutive validations without a gain of min_gain over the best earlier one."""
    min_gain: Annotated[float, Field(ge=0)] | None = None
    """Smallest gain that counts: 0.5 percentage points by default. Other metrics have no default."""
    collapse: Annotated[float, Field(gt=0)] | None = None
    """Stop when a validation is this much worse than the best one."""
    idle: Positive | None = None
    """Stop after this many consecutive steps in which every group's rewards are all equal (zero advantage)."""


Logger = Literal["file", "wandb", "tensorboard", "trackio", "mlflow"]


OURS = "ours"
HARNESSES = ("alpaca_eval", "lm_eval")  # modules of launchers/harnesses, environments of configs/envs


class Judge(Strict):
    """The judge model of the alpaca_eval harness: an OpenAI-compatible endpoint that returns log-probabilities."""

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable with the API key."""
    length_controlled: bool = True
    """Also report the length-controlled win rate, which the harness supports only for its own questions."""


class Eval(Strict):
    """Evaluation: generate on benchmarks and grade with the rewards used in training, or with a harness."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names in configs/tasks. Other names are tasks of `harness`; <harness>/<task> selects a harness for one task."""
    harness: Literal["ours", "lm_eval", "alpaca_eval"] = "ours"
    """The harness that grades tasks not in configs/tasks. Completions are sampled in the same way for all tasks."""
    metrics: dict[str, str] = {}
    """lm_eval task to the metric to report, as metric or metric,filter; default: the task's first metric and filter."""
    judge: Judge | None = None
    """Judge model for alpaca_eval."""
    paths: dict[str, str] = {}
    """Task name to a local file that replaces its download; for lm_eval a task file in its format."""
    n: Positive = 1
    """Samples per prompt."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Positive = 2048
    """Tokens per completion."""
    max_model_len: Positive | None = None
    """Prompt plus completion; null uses the model's own limit."""
    tensor_parallel: Positive = 1
    """GPUs per engine. As many engines run in parallel as the GPUs allow."""
    workers: Positive | None = None
    """Processes that grade programs; null: two per GPU, one on a CPU."""
    seed: Annotated[int, Field(ge=0)] = 0
    limit: Positive | None = None
    """Prompts per task, chosen by the seed; null uses all."""
    before: bool = False
    """Also evaluate the model that training starts from."""


class Limits(Strict):
    """Failure limits: fractions above which a run stops with an error."""

    bad_rows: Share = 0.02
    """Fraction of invalid rows in a data step."""
    errors: Share = 0.02
    """Fraction of rows whose grading fails or times out."""
    thoughts: Share = 0.05
    """Fraction of training rows whose thought is truncated by max_length or that lack the `thinking` format's tags."""


class Control(Strict):
    """The keys that a control run changes; all others are the recipe's. The merged recipe is validated."""

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
    """Keys that apply to one trainer only."""

    hardware: str | None = None
    time_limit: str | None = None
    train: dict[str, Any] = {}
    native: dict[str, Any] = {}


class Recipe(Strict):
    """A resolved recipe: `extends`, the scale's overlay and the overrides are merged in."""

    extends: list[str] = []
    """Base files, merged in order, with this file on top; paths are relative to this file."""
    trainer: TrainerName
    """The training framework."""
    trainers: dict[TrainerName, Variant] = {}
    """Trainer name to keys that override the recipe when that trainer is selected. `native` keys elsewhere apply to the
    recipe's own trainer only."""
    method: Literal["sft", "dpo", "grpo", "ppo"]
    """The training method."""
    model: str
    """A Hub id (owner/name) or a local folder."""
    revision: str | None = None
    """Hub revision of the model (a commit)."""
    positions: Positive | None = None
    """Maximum sequence length, if it should exceed the limit in the model's config (rotary positions are
    extrapolated)."""
    model_of: str | None = None
    """A recipe (family/name) that runs first; training starts from its trained model. `model` is then the model that
    recipe started from."""
    zero: Literal["zero", "zero_nothink"] | None = None
    """For RL from a base model: the template in templates/chat that prompts the model for the format. The run trains a
    copy of the model with this chat template."""
    hardware: str
    """A profile in configs/hardware."""
    site: str | None = None
    """A profile in configs/sites: Slurm partition, account, modules."""
    time_limit: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")] = "24:00:00"
    """Slurm time limit."""
    chain: bool = False
    """Whether a Slurm job that reaches its time limit is requeued and resumes from its last checkpoint."""
    data: str
    """A pipeline in this family's data.yaml, or a path to your own rows."""
    system_prompt: str | None = None
    """A file in templates/prompts, without its extension; added to rows read from a `data` path and to benchmarks."""
    thinking: str | None = None
    """The thinking format of completions (rewards/thinking.py), used by data steps (${thinking}), rewards and
    evaluation; training rows are checked against it. null: completions contain only the answer."""
    from_run: str | None = None
    """A finished online RL run whose samples a data step reads as ${from_run}."""
    train: Train
    preference: Preference | None = None
    rollout: Rollout | None = None
    reward: Reward | None = None
    """The reward of online RL. With other methods only reward `model` is allowed; evaluation then scores answers with
    it."""
    reward_model: RewardModel | None = None
    second_judge: RewardModel | None = None
    """Another reward model, which scores the validation samples after online RL. The kept checkpoint with the highest
    score becomes the trained model: the training reward model may have been over-optimised."""
    algorithm: Algorithm | None = None
    validation: Validation | None = None
    stop: Stop | None = None
    loggers: list[Logger] = ["file"]
    """Where training metrics are logged. The file is always written: reports are drawn from it."""
    native: dict[str, Any] = {}
    """Keys passed through to the trainer's own config; null removes an inherited one."""
    eval: Eval | None = None
    expect: dict[str, float] = {}
    """Benchmark to published result, in the benchmark's unit: accuracy in percent unless its task sets another
    metric."""
    reference: dict[str, dict[str, float]] = {}
    """Published results of other systems: name to benchmark to result."""
    comparable: bool = True
    """Whether results can be compared with `expect` (false for mini runs)."""
    controls: dict[ControlName, Control] = {}
    """Control runs: name to the keys that differ. Each is trained and evaluated like the recipe."""
    limits: Limits = Limits()
