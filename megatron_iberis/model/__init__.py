"""Saint Iberis on megatron-core: SLC2 and attention as transformer-layer specs, tensor- and sequence-parallel."""
