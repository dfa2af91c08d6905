"""megatron-core's configuration and layer specs for a Saint Iberis model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch.utils.checkpoint import checkpoint

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.attention import Attention, AttentionSubmodules
from megatron_iberis.model.linear import ColumnLinear, ReplicatedLinear, RowLinear
from megatron_iberis.model.norm import RMSNorm
from megatron_iberis.model.slc2 import SLC2, SLC2Submodules


def relu_squared(x: torch.Tensor) -> torch.Tensor:
    """relu(x)^2, the MLP's activation."""
    return F.relu(x).square()


def transformer_config(model: ModelConfig, tensor_size: int, sequence_parallel: bool) -> TransformerConfig:
    """megatron-core's view of the (resolved) model. Weights are allocated on the CPU and initialised by us."""
    return TransformerConfig(
        num_layers=model.depth,
        hidden_size=model.width,
        num_attention_heads=model.heads,
        ffn_hidden_size=model.mlp_hidden,
        layernorm_epsilon=model.norm_eps,
        normalization="RMSNorm",
        activation_func=relu_squared,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bias_dropout_fusion=False,
        tensor_model_parallel_size=tensor_size,
        sequence_parallel=sequence_parallel,
        params_dtype=torch.float32,
        use_cpu_initialization=True,
        perform_initialization=False,
        cuda_graph_scope=[],  # its own default makes it warn
    )


class RecomputedLayer(TransformerLayer):
    """A transformer layer that keeps its input alone and runs again in the backward pass.

    megatron-core's own recomputation saves and restores CUDA random states; there is no dropout here, and CPUs.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def block_spec(model: ModelConfig, tensor_size: int, recompute: bool = False) -> TransformerBlockSubmodules:
    """One spec a layer: attention where `model.is_attention` says so, SLC2 elsewhere; norms without weights."""
    layer_class = RecomputedLayer if recompute else TransformerLayer
    attention, slc2 = _attention_spec(model, tensor_size), _slc2_spec(model)
    return TransformerBlockSubmodules(
        layer_specs=[
            _layer_spec(layer_class, attention if model.is_attention(layer) else slc2) for layer in range(model.depth)
        ],
        layer_norm=RMSNorm,
    )


def _layer_spec(layer_class: type[TransformerLayer], mixer: ModuleSpec) -> ModuleSpec:
    return ModuleSpec(
        module=layer_class,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=mixer,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=ModuleSpec(
                module=MLP,
                submodules=MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=RowLinear),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )


def _slc2_spec(model: ModelConfig) -> ModuleSpec:
    return ModuleSpec(
        module=SLC2,
        params={"kernel": model.kernel, "inner_norm": model.inner_norm},
        submodules=SLC2Submodules(
            linear_x=ColumnLinear,
            linear_alpha=ColumnLinear,
            linear_a=ReplicatedLinear,
            linear_b=ColumnLinear,
            linear_proj=RowLinear,
        ),
    )


def _attention_spec(model: ModelConfig, tensor_size: int) -> ModuleSpec:
    kv_linear = ReplicatedLinear if model.kv_heads % tensor_size else ColumnLinear
    return ModuleSpec(
        module=Attention,
        params={"kv_heads": model.kv_heads},
        submodules=AttentionSubmodules(
            linear_q=ColumnLinear,
            linear_k=kv_linear,
            linear_v=kv_linear,
            linear_proj=RowLinear,
        ),
    )
