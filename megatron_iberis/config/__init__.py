"""The recipe: dataclasses, their validation, and the way from TOML and command line to a resolved recipe."""

from megatron_iberis.config.recipe import Recipe, load_recipe, recipe_text, save_recipe
from megatron_iberis.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    TrainConfig,
)

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "Recipe",
    "RunConfig",
    "TrainConfig",
    "load_recipe",
    "recipe_text",
    "save_recipe",
]
