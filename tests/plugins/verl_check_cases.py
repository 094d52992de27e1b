"""check.py on good and bad configs: run by test_verl_environment.py with the interpreter of verl's environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from omegaconf import DictConfig

from launchers.plugins.verl import check, dump_keys
from tests.plugins.verl_check_making import CPU, CRITIC, FUNCTION, POLICY, REPO, ROLLOUT, Training, found_in


def test_a_good_config_has_no_fault_nor_has_its_layer_for_a_cpu(training: Training) -> None:
    assert training.faults() == []
    assert training.faults(*CRITIC) == []
    training.write("cpu.yaml", CPU)
    assert training.faults() == []


# What verl itself refuses, with the key that its words name.
REFUSED = {
    "data.train_batch_size=3": "",
    f"{POLICY}.loss_agg_mode=mean": f"{POLICY}.loss_agg_mode",
    f"{ROLLOUT}.name=???": f"{ROLLOUT}.name",
}


@pytest.mark.parametrize("override", REFUSED)
def test_verls_own_refusal_is_one_line_with_its_key(good: DictConfig, override: str) -> None:
    [(key, message)] = found_in(good, (override,))[:1]
    assert REFUSED[override] in key
    assert "\n" not in message


def test_native_lies_over_the_other_layers(training: Training) -> None:
    training.write("cpu.yaml", CPU)
    training.write("native.yaml", {"trainer": {"n_gpus_per_node": 2}})
    assert check.compose(training.path).trainer.n_gpus_per_node == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [("verl.yaml", "data: [1"), ("native.yaml", "data: [1"), ("verl.yaml", "defaults: [nope]")],
)
def test_a_file_that_cannot_be_read_is_one_line(training: Training, file: str, content: str) -> None:
    training.write(file, content)
    with pytest.raises(check.CannotCompose) as caught:
        check.compose(training.path)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_faults_are_told_in_the_recipes_words() -> None:
    origins: Mapping[str, Any] = {
        "data": ["data", "a.yaml:1"],
        f"{ROLLOUT}.n": ["rollout.samples", "recipes/min_o1/grpo.yaml:12"],
        f"{POLICY}.optim": ["native.optim", "a.yaml:3"],
        f"{POLICY}.optim.lr": ["train.learning_rate", "a.yaml:4"],
    }
    found = [
        check.NativeFault(f"{ROLLOUT}.n", "is 1"),
        check.NativeFault(f"{POLICY}.optim.lr", "is 0"),
        check.NativeFault(f"{POLICY}.optim.foo", "is unknown"),
        check.NativeFault(f"{ROLLOUT}.name", "is vlm"),
    ]
    assert check.explain(found, origins) == [
        f"recipes/min_o1/grpo.yaml:12: rollout.samples: is 1 (verl's {ROLLOUT}.n)",
        f"a.yaml:4: train.learning_rate: is 0 (verl's {POLICY}.optim.lr)",
        f"a.yaml:3: native.optim: is unknown (verl's {POLICY}.optim.foo)",
        f"verl.yaml: {ROLLOUT}.name: is vlm",
    ]


def test_the_keys_file_is_that_of_this_verl() -> None:
    assert (REPO / "configs" / "native" / "verl.json").read_text() == dump_keys.text()


def test_keys_have_types_choices_and_successors() -> None:
    known = json.loads(dump_keys.text())
    assert known["keys"][f"{POLICY}.optim.lr"] == {"type": "float"}
    assert known["keys"][f"{ROLLOUT}.enable_sleep_mode"] == {"type": "bool"}
    assert known["keys"]["data.train_batch_size"] == {"type": "int"}
    assert "dr_grpo" in known["keys"][f"{POLICY}.policy_loss.loss_mode"]["choices"]
    assert "file" in known["keys"]["trainer.logger"]["items"]
    assert f"{POLICY}.fsdp_config.mixed_precision" in known["free"]
    assert f"{POLICY}.fsdp_config.micro_batch_size_per_gpu" not in known["keys"]  # verl's worker sets it
    assert not any(key.split(".")[0] in known["legacy"] for key in known["keys"])
    assert known["legacy"]["custom_reward_function"] == FUNCTION
