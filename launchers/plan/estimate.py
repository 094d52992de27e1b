"""Memory, hours and cost before launch: orders of magnitude from arithmetic, said as such.

Mixed-precision AdamW holds 2 bytes of weights, 2 of gradients and 12 of fp32 master copy and moments per
parameter (Rajbhandari et al. 2020, arXiv 1910.02054, section 3). A forward and backward pass takes 6 FLOPs
per parameter and token, 8 with recomputation (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from launchers.backends.base import Backend
from launchers.backends.shared import leaves
from launchers.machines.hardware import Hardware
from launchers.plan.plan import Plan
from launchers.recipe import models
from launchers.recipe.online import is_online
from launchers.recipe.schema import Preference, Recipe

PEAK_SHARE = 0.40  # of peak FLOP/s; public dense SFT runs report 35 to 55 % with checkpointing at 2k to 8k tokens
CHARACTERS_PER_TOKEN = 3.0  # of mathematical English under BPE
MANY_PASSES = 10  # published SFT takes 1 to 5, RL up to about 10
REFERENCE_FREE = ("simpo", "orpo")
TRAINED_BY_ADAPTERS = 0.02  # of the weights, generously


@dataclass(frozen=True)
class Model:
    """Sizes that memory and time follow from."""

    params: float
    layers: int
    hidden: int
    vocab: int
    positions: int


@dataclass(frozen=True)
class Estimate:
    """Per GPU memory in GB (weights, gradients, optimiser and rollout engine; activations of one micro batch), hours,
    dollars."""

    state_gb: float
    activations_gb: float
    hours: float | None
    usd: float | None

    @property
    def memory_gb(self) -> float:
        """Peak memory of one GPU."""
        return self.state_gb + self.activations_gb


def model_sizes(model: str, revision: str | None = None) -> Model | None:
    """From configs/models.yaml or the model's own config.json; None for a model we know nothing of."""
    if entry := models.known(model):
        return Model(**{field.name: entry[field.name] for field in fields(Model)})
    place = models.folder(model, revision)
    read = models.text_config(models.read_config(place)) if place else {}
    if not all(isinstance(read.get(key), int) for key in models.SIZES):  # some families have a size for each layer
        return None
    hidden, layers, heads = read["hidden_size"], read["num_hidden_layers"], read["num_attention_heads"]
    kv = (read.get("num_key_value_heads") or heads) / heads
    block = hidden * hidden * (2 + 2 * kv) + 3 * hidden * read["intermediate_size"]
    embeddings = read["vocab_size"] * hidden * (1 if read.get("tie_word_embeddings") else 2)
    return Model(layers * block + embeddings, layers, hidden, read["vocab_size"], read["max_position_embeddings"])


def _state_bytes(recipe: Recipe, backend: Backend, sharding: str, world: int) -> float:
    """Bytes per parameter on one GPU, of all that outlives a step."""
    whole_reference = recipe.method == "dpo" and not recipe.train.lora  # adapters need none, they are switched off
    if backend.pure_bf16 and recipe.train.precision == "bf16":  # weights, gradients and moments, no master copy
        return (2 + 2 * whole_reference + 6 * (TRAINED_BY_ADAPTERS if recipe.train.lora else 1)) / world
    shards = world if "zero3" in sharding or "full_shard" in sharding else 1
    state = 2 + 14 / world if "zero2" in sharding else 16 / shards
    if "offload" in sharding:
        state = 4 / world
    if recipe.train.lora:  # the other weights are frozen, in 2 bytes
        return TRAINED_BY_ADAPTERS * state + 2 / shards
    if backend.reference_beside and _has_reference(recipe) and "offload" not in sharding:
        return state + 2 / shards
    return state


def estimate(plan: Plan) -> Estimate | None:
    """What the recipe's training will take on its hardware; None where the model's sizes are not known."""
    recipe, machines, backend = plan.resolved.recipe, plan.main.hardware, plan.backend
    model = model_sizes(recipe.model, recipe.revision)
    if model is None:
        return None
    train = recipe.train
    sharding = str(recipe.native.get("deepspeed") or recipe.native.get("fsdp_config") or "")
    engine = 0.0
    if recipe.rollout:  # FSDP2; param_offload and optimizer_offload end while it trains, which is the peak
        offload = dict(leaves(recipe.native)).get("actor_rollout_ref.actor.fsdp_config.offload_policy")
        sharding = "full_shard, offload" if offload else "full_shard"
        engine = recipe.rollout.memory_share * machines.memory_gb if machines.device == "cuda" else 0.0
    state = _state_bytes(recipe, backend, sharding, machines.world)
    tokens = train.micro_batch * _length(recipe)
    if recipe.method == "dpo":
        tokens *= 2  # both completions of a pair
    per_layer = 2 if train.gradient_checkpointing else 34  # bytes per token and hidden unit kept for the backward pass
    activations = tokens * (model.hidden * model.layers * per_layer + model.vocab * _logit_bytes(recipe, backend))
    hours = _hours(plan, model, machines)
    rate = machines.usd_per_gpu_hour
    usd = hours * plan.hardware.world * rate if hours is not None and rate else None
    return Estimate(model.params * state / 1e9 + engine, activations / 1e9, hours, usd)


def unknown(plan: Plan) -> str | None:
    """Why there is no estimate, or none of the time; None where there is one."""
    recipe = plan.resolved.recipe
    if model_sizes(recipe.model, recipe.revision) is None:
        return f"none: the sizes of {recipe.model} are not known; add it to configs/models.yaml"
    if recipe.rollout is not None:
        return "the time depends on how long the policy's answers are"
    if plan.rows() is None:
        return "the time is known once the data are made"
    return "the time is not known: packing decides the steps" if plan.steps() is None else None


def oversize(plan: Plan) -> str | None:
    """Why the training does not fit into a device's memory by the estimate; None where it does or nothing is known."""
    needed, limit = estimate(plan), plan.main.hardware.memory_gb
    if needed is None or needed.memory_gb <= limit:
        return None
    needs = f"does not fit: about {needed.memory_gb:.0f} GB needed of {limit:g} GB per device"
    return f"{needs} (smaller train.micro_batch, or more sharding; ALLOW=oom runs it)"


def passes(plan: Plan) -> float | None:
    """How often each row is trained on; None while rows or steps are not known."""
    recipe, rows, steps = plan.resolved.recipe, plan.rows(), plan.steps()
    if not rows or steps is None or recipe.train.packing:
        return None
    per_step = recipe.rollout.prompts if recipe.rollout else recipe.train.global_batch
    return steps * per_step / rows


def warnings(plan: Plan) -> list[str]:
    """What the estimate says against a plan."""
    lines = [text] if (text := oversize(plan)) else []
    often = passes(plan)
    if often is not None and often > MANY_PASSES:
        lines.append(f"each of the {plan.rows():,} training rows is seen {often:.0f} times: more rows, or fewer steps")
    return lines


def _has_reference(recipe: Recipe) -> bool:
    """Whether a second model looks at each pair: simpo and orpo have none."""
    loss = recipe.preference.loss if recipe.preference else Preference().loss
    return recipe.method == "dpo" and loss not in REFERENCE_FREE


def _logit_bytes(recipe: Recipe, backend: Backend) -> int:
    """Bytes at the peak per token and word of the vocabulary.

    Pairs without a fused loss and in fp32 (such as LLaMA-Factory 0.9.5: model/loader.py, require_logits;
    train/dpo/trainer.py, concatenated_forward; train/trainer_utils.py, get_batch_logps): logits, a copy of them
    without the last token, and log_softmax, three times 4 bytes, and as many on the way back (log_softmax, its gradient
    and that of the logits). With a reference model the policy's logits and log_softmax wait, 8 more, while the
    reference's are made. Measured with its own functions: 12.1 and 20.1.
    """
    if recipe.method == "dpo" and backend.pair_logits_fp32:
        return 20 if _has_reference(recipe) else 12
    # bf16 logits and their fp32 copy in the loss; the fused loss goes through them in pieces
    return 0 if recipe.native.get("enable_liger_kernel") else 6


def _length(recipe: Recipe) -> int:
    """Tokens of the longest sequence."""
    if recipe.rollout:
        return recipe.rollout.max_prompt_length + recipe.rollout.max_response_length
    assert recipe.train.max_length is not None
    return recipe.train.max_length


def tokens_per_row(plan: Plan) -> float | None:
    """A row's mean length, guessed from its characters; None while the data are not made, and in online RL."""
    rows = plan.rows()
    if not rows or is_online(plan.resolved.recipe):  # the length of a policy's answers is not known
        return None
    size = sum(path.stat().st_size for path in plan.main.dataset.glob("*.json*") if path.name != "dataset_info.json")
    return min(float(_length(plan.resolved.recipe)), size / rows / CHARACTERS_PER_TOKEN)


def packed_rows(plan: Plan) -> float | None:
    """Rows that share a sequence of max_length under packing, about; None without packing, or without data."""
    length = tokens_per_row(plan) if plan.resolved.recipe.train.packing else None
    return length and _length(plan.resolved.recipe) / length


def _hours(plan: Plan, model: Model, machines: Hardware) -> float | None:
    steps, train = plan.steps(), plan.resolved.recipe.train
    length = tokens_per_row(plan)
    if steps is None or length is None:
        return None
    per_parameter, sequences = (8 if train.gradient_checkpointing else 6), 1
    if plan.resolved.recipe.method == "dpo":
        sequences = 2  # both completions, which the reference model looks at too
        per_parameter += 2 if _has_reference(plan.resolved.recipe) else 0
    flops = sequences * per_parameter * model.params * steps * train.global_batch * length
    return flops / (machines.peak_bf16_tflops * 1e12 * PEAK_SHARE * machines.world) / 3600
