"""What is changed in other people's packages is still there to be changed, and needed."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch

from megatron_iberis.parallel import third_party


def test_new_groups_take_torchs_default_timeouts_from_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import distributed_c10d

    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        assert name in inspect.getsource(distributed_c10d._get_default_timeout)
        monkeypatch.setattr(distributed_c10d, name, getattr(distributed_c10d, name))  # put back at the end
    third_party.set_default_timeout(timedelta(minutes=7))
    for backend in ("gloo", "nccl"):
        assert distributed_c10d._get_default_timeout(distributed_c10d.Backend(backend)) == timedelta(minutes=7)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the answer is only given where there is no GPU")
def test_megatrons_collectives_allocate_on_the_current_cuda_device_which_is_the_cpu_here() -> None:
    from megatron.core.tensor_parallel import mappings

    assert "torch.cuda.current_device()" in inspect.getsource(mappings)
    third_party.prepare_megatron()
    assert torch.empty(2, device=torch.cuda.current_device()).device == torch.device("cpu")


def test_megatrons_memory_buffer_and_random_tracker_are_there_without_its_global_groups() -> None:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    third_party.prepare_megatron()
    buffer = parallel_state.get_global_memory_buffer().get_tensor((2, 3), torch.float32, "test")
    assert buffer.shape == (2, 3)
    with get_cuda_rng_tracker().fork():
        pass


def test_deepspeed_starts_without_compiling_its_shared_memory_collectives() -> None:
    import deepspeed
    from deepspeed.utils import logger

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    assert "ShareMemCommBuilder" in inspect.getsource(importlib.import_module("deepspeed.comm.torch"))
    with third_party.deepspeed_starting():
        assert not deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"]
        assert logger.level == logging.ERROR
    assert logger.level == logging.WARNING


def test_environment_variables_of_the_user_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "")  # so that it is put back as it was
    del os.environ["LOCAL_RANK"]
    third_party.set_environment("cuda")
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "8"
    assert os.environ["DS_ACCELERATOR"] == "cpu"
    assert os.environ["LOCAL_RANK"] == "0"


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, megatron_iberis; assert not {'torch', 'deepspeed', 'megatron'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
