"""Table [deepspeed]: what is passed through to DeepSpeed, checked against the recipe and DeepSpeed's own names.

Names and kinds are those of DeepSpeed 0.19.8, held against it by a test: to ask DeepSpeed itself would take torch.
What stands deeper in its tables is looked at by DeepSpeed when the engine starts.
"""

from __future__ import annotations

from typing import Any

from megatron_iberis.config.checks import require
from megatron_iberis.config.overrides import shown, suggest

DECIDED = {
    "train_batch_size": "train.batch_tokens",
    "train_micro_batch_size_per_gpu": "train.device_batch",
    "gradient_accumulation_steps": "train.batch_tokens and train.device_batch",
    "managed_gradient_accumulation": "train.batch_tokens and train.device_batch",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "the settings of [optimizer]",
    "scheduler": "optimizer.warmup_steps and optimizer.warmdown_fraction",
    "zero_allow_untested_optimizer": "the settings of [optimizer]",
    "zero_force_ds_cpu_optimizer": "the settings of [optimizer]",
    "fp16": "train.dtype",
    "bfloat16": "train.dtype",
    "bf16.enabled": "train.dtype",
    "torch_autocast": "train.dtype",
    "zero_optimization.stage": "parallel.zero_stage",
    "zero_optimization.compute_grad_norm": "the run itself, which clips by the norm and shows it",
    "tensor_parallel": "parallel.tp",
    "pipeline": "parallel.tp and parallel.cp",
    "expert_parallel": "the settings of [model], which has no experts",
    "data_efficiency": "the settings of [data]",
    "tensorboard": "the run itself, which writes TensorBoard's files to run.folder",
}
"""Keys that the recipe decides, and by which of its settings."""

SETTINGS: dict[str, type] = {
    **dict.fromkeys(("communication_data_type", "gradient_allreduce_op", "log_level"), str),
    **dict.fromkeys(("seq_parallel_communication_data_type",), str),
    **dict.fromkeys(("steps_per_print", "vocabulary_size"), int),
    **dict.fromkeys(("disable_allgather", "disable_python_gc", "dump_state", "dataloader_drop_last"), bool),
    **dict.fromkeys(("memory_breakdown", "wall_clock_breakdown", "prescale_gradients"), bool),
    **dict.fromkeys(("use_data_before_expert_parallelism",), bool),
    **dict.fromkeys(("gradient_predivide_factor",), float),
    **dict.fromkeys(("activation_checkpointing", "aio", "autotuning", "bf16", "checkpoint", "comet"), dict),
    **dict.fromkeys(("comms_logger", "compile", "csv_monitor", "data_types", "datastates_ckpt", "timers"), dict),
    **dict.fromkeys(("flops_profiler", "hybrid_engine", "wandb", "weight_quantization"), dict),
    **dict.fromkeys(("zero_optimization",), dict),
}
"""All other keys at the top, and what each takes."""

ZERO_OPTIMIZATION = frozenset(
    [
        "contiguous_gradients",
        "reduce_scatter",
        "reduce_bucket_size",
        "use_multi_rank_bucket_allreduce",
        "allgather_partitions",
        "allgather_bucket_size",
        "overlap_comm",
        "load_from_fp32_weights",
        "elastic_checkpoint",
        "offload_param",
        "offload_optimizer",
        "zenflow",
        "sub_group_size",
        "cpu_offload_param",
        "cpu_offload_use_pin_memory",
        "cpu_offload",
        "prefetch_bucket_size",
        "param_persistence_threshold",
        "model_persistence_threshold",
        "max_live_parameters",
        "max_reuse_distance",
        "gather_16bit_weights_on_model_save",
        "module_granularity_threshold",
        "use_all_reduce_for_fetch_params",
        "allgather_sequential",
        "stage3_prefetch_bucket_size",
        "stage3_param_persistence_threshold",
        "stage3_model_persistence_threshold",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_gather_16bit_weights_on_model_save",
        "stage3_module_granularity_threshold",
        "stage3_use_all_reduce_for_fetch_params",
        "stage3_allgather_sequential",
        "stage3_gather_fp16_weights_on_model_save",
        "ignore_unused_parameters",
        "legacy_stage1",
        "round_robin_gradients",
        "parameter_alignment",
        "zero_hpz_partition_size",
        "zero_quantized_weights",
        "zero_quantized_nontrainable_weights",
        "zero_quantized_gradients",
        "memory_efficient_linear",
        "pipeline_loading_checkpoint",
        "override_module_apply",
        "log_trace_cache_warnings",
        "enable_sanity_checks",
        "save_muon_momentum_buffer_in_memory",
        "leaf_module",
    ]
)
"""The keys of its table zero_optimization, but for the stage."""

_KINDS = {str: "a text", int: "a whole number", bool: "true or false", float: "a number", dict: "a table"}


def check_deepspeed(table: dict[str, Any]) -> None:
    """Raises InputError for a key that the recipe decides or DeepSpeed does not know, or a value of another kind."""
    for key, value in table.items():
        _check_undecided(key)
        require(key in SETTINGS, f"unknown setting deepspeed.{key}{suggest(key, SETTINGS, 'deepspeed')}")
        kind = SETTINGS[key]
        fits = type(value) is kind or (kind is float and type(value) is int)
        require(fits, f"deepspeed.{key} is {shown(value)}: it must be {_KINDS[kind]}.")
        for inner in value if kind is dict else ():
            _check_undecided(f"{key}.{inner}")
    section = "deepspeed.zero_optimization"
    for key in table.get("zero_optimization", {}):
        require(
            key in ZERO_OPTIMIZATION, f"unknown setting {section}.{key}{suggest(key, ZERO_OPTIMIZATION, section)}"
        )


def _check_undecided(key: str) -> None:
    require(
        key not in DECIDED,
        f"deepspeed.{key} is decided by {DECIDED.get(key)}: leave it out of [deepspeed] and set that.",
    )
