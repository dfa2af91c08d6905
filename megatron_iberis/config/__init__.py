"""The recipe: dataclasses, their validation, and the way from TOML and command line to a resolved recipe."""

from megatron_iberis.config.data import DataConfig
from megatron_iberis.config.evaluation import EvaluationConfig
from megatron_iberis.config.model import ModelConfig
from megatron_iberis.config.optimizer import OptimizerConfig
from megatron_iberis.config.parallel import ParallelConfig
from megatron_iberis.config.preference import PreferenceConfig
from megatron_iberis.config.recipe import Recipe, load_recipe, recipe_text, save_recipe
from megatron_iberis.config.reinforce import ReinforceConfig
from megatron_iberis.config.run import CheckpointConfig, RunConfig
from megatron_iberis.config.tasks import SourceConfig, TasksConfig
from megatron_iberis.config.train import TrainConfig

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PreferenceConfig",
    "Recipe",
    "ReinforceConfig",
    "RunConfig",
    "SourceConfig",
    "TasksConfig",
    "TrainConfig",
    "load_recipe",
    "recipe_text",
    "save_recipe",
]
