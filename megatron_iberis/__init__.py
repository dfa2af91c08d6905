"""Trains Saint Iberis with megatron-core and DeepSpeed, from raw text to a model, on any machine."""

import warnings

__version__ = "0.1.0"

# megatron-core says this at import; neither package is wanted here, and a user can do nothing about it.
warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
