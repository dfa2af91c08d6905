"""Trains Saint Iberis with megatron-core and DeepSpeed, from raw text to a model, on any machine."""

__version__ = "0.1.0"
