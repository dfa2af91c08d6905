"""From token files to batches.

* token_files/  the .bin and .idx pair: reading, writing, inspecting, verifying and merging it
* order/        which tokens make up sample number s: running text, packed documents, Megatron's order, mixtures
* batches.py    what a rank sees at a step: `BatchPlan`, the sources of samples, `micro_batches`, `prefetch`
"""
