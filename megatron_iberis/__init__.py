"""Trains Saint Iberis with megatron-core and DeepSpeed, from raw text to a model, on any machine."""

from megatron_iberis.parallel.third_party import ignore_warnings

__version__ = "0.1.0"

ignore_warnings()
