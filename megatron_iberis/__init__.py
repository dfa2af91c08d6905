"""Trains Saint Iberis with megatron-core and DeepSpeed, from raw text to a model, on any machine."""

import warnings

__version__ = "0.1.0"

# What others warn of and a user can do nothing about: megatron-core wants packages that are not needed here, and
# it and DeepSpeed call collectives by names that torch is about to change.
warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated")
