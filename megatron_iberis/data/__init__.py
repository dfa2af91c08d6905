"""From token files to batches.

* token_file.py  the .bin and .idx pair: `TokenFile` reads, `TokenFileWriter` writes
* samples.py     which tokens make up sample number s: `SampleOrder`
* batches.py     what a rank sees at a step: `BatchPlan`, `TokenBatches`, `micro_batches`, `prefetch`
"""
