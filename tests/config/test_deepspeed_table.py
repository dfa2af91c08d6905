"""The [deepspeed] table says nothing that the recipe decides, and nothing that DeepSpeed would not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pytest

from megatron_iberis.config import load_recipe
from megatron_iberis.config.deepspeed import DECIDED, SETTINGS, ZERO_OPTIMIZATION
from megatron_iberis.errors import InputError

DECIDED_BY = [
    ("train_batch_size", "7", "train.batch_tokens"),
    ("train_micro_batch_size_per_gpu", "7", "train.device_batch"),
    ("gradient_accumulation_steps", "2", "train.batch_tokens"),
    ("gradient_clipping", "2.0", "optimizer.clip"),
    ("fp16.enabled", "true", "train.dtype"),
    ("bf16.enabled", "false", "train.dtype"),
    ("bfloat16.enabled", "true", "train.dtype"),
    ("zero_optimization.stage", "0", "parallel.zero_stage"),
    ("optimizer.type", "Adam", "[optimizer]"),
    ("scheduler.type", "WarmupLR", "optimizer.warmup_steps"),
]


@pytest.mark.parametrize(("key", "value", "setting"), DECIDED_BY)
def test_what_the_recipe_decides_is_refused_with_its_setting(key: str, value: str, setting: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("demo", [f"--deepspeed.{key}", value])
    decided = key if key in DECIDED else key.split(".")[0]
    assert str(caught.value).startswith(f"deepspeed.{decided} is decided by ")
    assert setting in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("zero_optimization 2", "deepspeed.zero_optimization is '2': it must be a table."),
        ("zero_optimization true", "deepspeed.zero_optimization is 'True': it must be a table."),
        ("bf16 true", "deepspeed.bf16 is 'True': it must be a table."),
        ("steps_per_print often", "deepspeed.steps_per_print is 'often': it must be a whole number."),
        ("wall_clock_breakdown 1", "deepspeed.wall_clock_breakdown is '1': it must be true or false."),
        (
            "flops_profilr.enabled true",
            "unknown setting deepspeed.flops_profilr: did you mean deepspeed.flops_profiler?",
        ),
        (
            "zero_optimization.overlap_com true",
            "unknown setting deepspeed.zero_optimization.overlap_com: did you mean "
            "deepspeed.zero_optimization.overlap_comm?",
        ),
    ],
)
def test_what_deepspeed_would_not_read_is_refused(words: str, message: str) -> None:
    key, value = words.split()
    with pytest.raises(InputError) as caught:
        load_recipe("demo", [f"--deepspeed.{key}", value])
    assert str(caught.value) == message


def test_deepspeed_settings_that_are_nobody_elses_are_taken() -> None:
    words = "--deepspeed.bf16.check_grad_overflow true --deepspeed.gradient_predivide_factor 2"
    offload = "--deepspeed.zero_optimization.offload_optimizer.device cpu"
    assert load_recipe("demo", [*words.split(), *offload.split()]).deepspeed == {
        "bf16": {"check_grad_overflow": True},
        "gradient_predivide_factor": 2,
        "zero_optimization": {"offload_optimizer": {"device": "cpu"}},
    }


class Asked(dict[str, Any]):
    """Notes the keys that it is asked for."""

    asked: ClassVar[set[str]] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def keys(self) -> Any:
        return self

    def __copy__(self) -> Asked:
        return Asked(self.items())


def test_the_known_keys_are_those_that_deepspeed_reads() -> None:
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    def names(fields: Iterable[tuple[str, Any]]) -> Iterator[str]:
        for name, field in fields:
            yield name
            if field.alias:
                yield field.alias

    DeepSpeedConfig(Asked(train_batch_size=1, train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1))
    top = {key for key in DECIDED if "." not in key}
    assert Asked.asked - set(_REMOVED_TOP_LEVEL_CONFIG_KEYS) == top | set(SETTINGS)
    assert set(names(DeepSpeedZeroConfig.model_fields.items())) == ZERO_OPTIMIZATION | {"stage", "compute_grad_norm"}
