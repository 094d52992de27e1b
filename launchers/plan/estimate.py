"""Order-of-magnitude estimates of memory, time and cost before launch.

Mixed-precision AdamW needs per parameter 2 bytes for weights, 2 for gradients and 12 for the fp32 master copy and
moments (Rajbhandari et al. 2020, arXiv 1910.02054, section 3). A forward and backward pass takes 6 FLOPs per parameter
and token, 8 with recomputation (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
"""

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
TRAINED_BY_ADAPTERS = 0.02  # fraction of the weights (upper bound)


@dataclass(frozen=True)
class Model:
    """Model sizes that determine memory and time."""

    params: float
    layers: int
    hidden: int
    vocab: int
    positions: int


@dataclass(frozen=True)
class Estimate:
    """Memory per GPU in GB (state: weights, gradients, optimiser, rollout engine; activations of one micro batch),
    hours, dollars."""

    state_gb: float
    activations_gb: float
    hours: float | None
    usd: float | None

    @property
    def memory_gb(self) -> float:
        """Peak memory of one GPU."""
        return self.state_gb + self.activations_gb


def model_sizes(model: str, revision: str | None = None) -> Model | None:
    """Sizes from configs/models.yaml or the model's config.json; None if unknown."""
    if entry := models.known(model):
        return Model(**{field.name: entry[field.name] for field in fields(Model)})
    place = models.folder(model, revision)
    read = models.text_config(models.read_config(place)) if place else {}
    if not all(isinstance(read.get(key), int) for key in models.SIZES):  # some families have per-layer sizes
        return None
    hidden, layers, heads = read["hidden_size"], read["num_hidden_layers"], read["num_attention_heads"]
    kv = (read.get("num_key_value_heads") or heads) / heads
    block = hidden * hidden * (2 + 2 * kv) + 3 * hidden * read["intermediate_size"]
    embeddings = read["vocab_size"] * hidden * (1 if read.get("tie_word_embeddings") else 2)
    return Model(layers * block + embeddings, layers, hidden, read["vocab_size"], read["max_position_embeddings"])


def _state_bytes(recipe: Recipe, backend: Backend, sharding: str, world: int) -> float:
    """Bytes per parameter on one GPU, without activations."""
    whole_reference = recipe.method == "dpo" and not recipe.train.lora  # LoRA's reference is the model without adapters
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
    """Estimate for the recipe's training on its hardware; None if the model's sizes are unknown."""
    recipe, machines, backend = plan.resolved.recipe, plan.main.hardware, plan.backend
    model = model_sizes(recipe.model, recipe.revision)
    if model is None:
        return None
    train = recipe.train
    sharding = str(recipe.native.get("deepspeed") or recipe.native.get("fsdp_config") or "")
    engine = 0.0
    if recipe.rollout:  # FSDP2; param_offload and optimizer_offload do not apply during the update, which is the peak
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
    """Why there is no estimate of memory or time; None if there are both."""
    recipe = plan.resolved.recipe
    if model_sizes(recipe.model, recipe.revision) is None:
        return f"none: the sizes of {recipe.model} are unknown; add it to configs/models.yaml"
    if recipe.rollout is not None:
        return "no time estimate: it depends on the length of the policy's answers"
    if plan.rows() is None:
        return "no time estimate until the data are made"
    return "no time estimate: packing determines the number of steps" if plan.steps() is None else None


def oversize(plan: Plan) -> str | None:
    """Why the training does not fit into device memory by the estimate; None if it fits or is unknown."""
    needed, limit = estimate(plan), plan.main.hardware.memory_gb
    if needed is None or needed.memory_gb <= limit:
        return None
    needs = f"does not fit: about {needed.memory_gb:.0f} GB needed of {limit:g} GB per device"
    return f"{needs} (smaller train.micro_batch, or more sharding; ALLOW=oom runs it anyway)"


def passes(plan: Plan) -> float | None:
    """Passes over each row; None while rows or steps are unknown."""
    recipe, rows, steps = plan.resolved.recipe, plan.rows(), plan.steps()
    if not rows or steps is None or recipe.train.packing:
        return None
    per_step = recipe.rollout.prompts if recipe.rollout else recipe.train.global_batch
    return steps * per_step / rows


def warnings(plan: Plan) -> list[str]:
    """Warnings of the estimate about a plan."""
    lines = [text] if (text := oversize(plan)) else []
    often = passes(plan)
    if often is not None and often > MANY_PASSES:
        lines.append(f"each of the {plan.rows():,} training rows is seen {often:.0f} times: more rows, or fewer steps")
    return lines


def _has_reference(recipe: Recipe) -> bool:
    """Whether the loss uses a reference model."""
    loss = recipe.preference.loss if recipe.preference else Preference().loss
    return recipe.method == "dpo" and loss not in REFERENCE_FREE


def _logit_bytes(recipe: Recipe, backend: Backend) -> int:
    """Peak bytes of logits per token and vocabulary entry.

    Preference training with fp32 logits and no fused loss (such as LLaMA-Factory 0.9.5: model/loader.py,
    require_logits; train/dpo/trainer.py, concatenated_forward; train/trainer_utils.py, get_batch_logps) holds logits, a
    copy without the last token, and log_softmax: 3 × 4 bytes, and as many in the backward pass (log_softmax, its
    gradient and that of the logits). With a reference model the policy's logits and log_softmax (8 bytes) are kept
    during the reference's forward pass. Measured with its functions: 12.1 and 20.1.
    """
    if recipe.method == "dpo" and backend.pair_logits_fp32:
        return 20 if _has_reference(recipe) else 12
    # bf16 logits and their fp32 copy in the loss; Liger's fused loss processes them in chunks
    return 0 if recipe.native.get("enable_liger_kernel") else 6


def _length(recipe: Recipe) -> int:
    """Tokens of the longest sequence."""
    if recipe.rollout:
        return recipe.rollout.max_prompt_length + recipe.rollout.max_response_length
    assert recipe.train.max_length is not None
    return recipe.train.max_length


def tokens_per_row(plan: Plan) -> float | None:
    """Mean tokens per row, estimated from its characters; None before the data are made, and in online RL."""
    rows = plan.rows()
    if not rows or is_online(plan.resolved.recipe):  # the length of the policy's answers is unknown
        return None
    size = sum(path.stat().st_size for path in plan.main.dataset.glob("*.json*") if path.name != "dataset_info.json")
    return min(float(_length(plan.resolved.recipe)), size / rows / CHARACTERS_PER_TOKEN)


def packed_rows(plan: Plan) -> float | None:
    """Estimated rows per packed sequence of max_length; None without packing, or without data."""
    length = tokens_per_row(plan) if plan.resolved.recipe.train.packing else None
    return length and _length(plan.resolved.recipe) / length


def _hours(plan: Plan, model: Model, machines: Hardware) -> float | None:
    steps, train = plan.steps(), plan.resolved.recipe.train
    length = tokens_per_row(plan)
    if steps is None or length is None:
        return None
    per_parameter, sequences = (8 if train.gradient_checkpointing else 6), 1
    if plan.resolved.recipe.method == "dpo":
        sequences = 2  # both completions, also through the reference model
        per_parameter += 2 if _has_reference(plan.resolved.recipe) else 0
    flops = sequences * per_parameter * model.params * steps * train.global_batch * length
    return flops / (machines.peak_bf16_tflops * 1e12 * PEAK_SHARE * machines.world) / 3600
