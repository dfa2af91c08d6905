"""From token files to batches.

* token_file.py  the .bin and .idx pair: `TokenFile` reads, `TokenFileWriter` writes
* samples.py     which tokens make up sample number s of running text: `SampleOrder`
* packing.py     which documents make up a row, where whole documents are packed: `open_packing`
* megatron_order.py  the same as megatron-core's GPTDataset has it: `open_megatron_order`
* stored_index.py  where the last two are kept between runs
* blending.py    which file sample number s of a mixture comes from: `read_mixture`, `Blend`
* batches.py     what a rank sees at a step: `BatchPlan`, the sources of samples, `micro_batches`, `prefetch`
"""
