"""From token files to batches.

* token_files/  the .bin and .idx pair: reading, writing, inspecting, verifying and merging it
* order/        which tokens make up sample number s: running text, packed documents, Megatron's order, mixtures
* rows.py       sources of samples: rows of numpy arrays, and where in which file they lie
* mixture.py    what a recipe says of its data, as opened sources
* plan.py       `BatchPlan`: which sample numbers a rank sees at a step
* batches.py    the same as torch tensors: `Batch`, `micro_batches`, `prefetch`
"""
