"""The peak that MFU is counted against: a table of GPUs, and a measurement for what isn't in it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from megatron_iberis.hardware import measure as hardware
from megatron_iberis.hardware.measure import core_share, memory_bytes, peak_flops
from megatron_iberis.hardware.peaks import known_gpu_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.5, 51.2),
        ("NVIDIA H100 NVL", 835.5, 60.0),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA GH200 480GB", 989.4, 66.9),
        ("NVIDIA H20", 148.0, 44.0),
        ("NVIDIA B200", 2250.0, 75.0),
        ("NVIDIA GB200", 2500.0, 80.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA A100 80GB PCIe", 312.0, 19.5),
        ("NVIDIA A10", 125.0, 31.2),
        ("NVIDIA L4", 121.0, 30.3),
        ("NVIDIA L40", 181.1, 90.5),
        ("NVIDIA L40S", 362.1, 91.6),
        ("NVIDIA RTX 6000 Ada Generation", 364.2, 91.1),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA GeForce RTX 3090 Ti", 80.0, 40.0),
        ("NVIDIA GeForce RTX 3090", 71.0, 35.6),
    ],
)
def test_gpu_is_known_by_the_name_its_driver_gives(name, bf16, fp32):
    assert known_gpu_flops(name, "bf16") == bf16 * 1e12
    assert known_gpu_flops(name, "fp32") == fp32 * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A10G",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA RTX 4090 D",
        "Tesla T4",
    ],
)
def test_relative_of_a_known_gpu_is_measured_instead(name):
    assert known_gpu_flops(name, "bf16") is None


def test_the_table_of_gpus_needs_no_torch():
    """A plan for another machine is made where there is none."""
    program = "import sys, megatron_iberis.hardware.peaks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_cpu_peak_is_measured_quickly_and_says_so():
    peak_flops(CPU, "fp32")
    started = time.perf_counter()
    peak = peak_flops(CPU, "fp32")
    assert time.perf_counter() - started < 3.0  # 0.2 s, and what other processes take
    assert peak.flops > 1e8
    threads = torch.get_num_threads()
    assert peak.name.startswith("measured: 1 CPU thread" if threads == 1 else f"measured: {threads} CPU threads")
    assert "fp32 matmul" in peak.name


def test_measuring_uses_no_random_numbers():
    before = torch.get_rng_state()
    peak_flops(CPU, "bf16")
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_that_share_cores_share_their_peak():
    assert core_share(threads=2, ranks=1, cores=2) == 1.0
    assert core_share(threads=2, ranks=2, cores=2) == 0.5  # each rank alone would measure the whole machine
    assert core_share(threads=1, ranks=2, cores=2) == 1.0  # each rank has a core of its own
    assert core_share(threads=8, ranks=4, cores=32) == 1.0


def test_ranks_of_this_node_are_read_from_the_launcher(monkeypatch):
    monkeypatch.setattr(hardware, "_measured_flops", lambda device, dtype: 8e9)
    monkeypatch.setattr(hardware, "cores_of_this_node", torch.get_num_threads)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for variable in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):  # DeepSpeed's launcher, torchrun
        monkeypatch.setenv(variable, "4")
        peak = peak_flops(CPU, "fp32")
        assert peak.flops == 2e9
        assert peak.name.endswith("fp32 matmul, cores shared by 4 ranks")
        monkeypatch.delenv(variable)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_of_a_cpu_process_is_its_resident_set():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert memory_bytes(CPU) == pytest.approx(int(fields["VmHWM"].split()[0]) * 1024, rel=0.05)


@pytest.mark.parametrize("faster", ["bf16", "fp32"])
def test_the_faster_dtype_of_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch, faster: str) -> None:
    rates = {"bf16": 1.0, "fp32": 1.0, faster: 2.0}
    monkeypatch.setattr(hardware, "_measured_flops", lambda device, dtype: rates[dtype])
    assert hardware.faster_dtype(torch.device("cpu")) == faster


def test_a_gpu_trains_in_bf16_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hardware, "_measured_flops")
    assert hardware.faster_dtype(torch.device("cuda")) == "bf16"
