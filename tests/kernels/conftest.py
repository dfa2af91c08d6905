import os

import torch

if not torch.cuda.is_available():  # kernels of a GPU are tested on CPUs; Triton looks when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")
