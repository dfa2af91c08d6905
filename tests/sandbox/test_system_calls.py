"""The filter lets through what is on the list, on both machines: run on a model of the kernel's filter machine."""

from __future__ import annotations

import struct

import pytest

from megatron_iberis.sandbox.system_calls import system_call_filter

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, REFUSE = 0x7FFF0000, 0x00050026  # errno 38


def decides(machine: str, number: int, *arguments: int, architecture: int = 0) -> int:
    """What the filter returns for a call: an interpreter of the five instructions that it uses."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *words)
    rows = list(struct.iter_unpack("<HBBI", system_call_filter(machine)))
    place = accumulator = 0
    while True:
        code, if_true, if_false, value = rows[place]
        place += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code in (0x15, 0x45):
            place += if_true if (accumulator == value if code == 0x15 else accumulator & value) else if_false
        else:
            assert code == 0x06
            return int(value)


# name: number on x86_64, on aarch64, arguments
ALLOWED = {
    "read": (0, 63),
    "mmap": (9, 222),
    "futex": (202, 98),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "a thread": (56, 220, 0x3D0F00),
    "a limit asked for": (302, 261, 0, 7, 0, 0x7FFF12345678),
    "openat to read": (257, 56, 0xFFFFFF9C, 1, 0o2000000),
    "openat to write": (257, 56, 0xFFFFFF9C, 1, 0o1101),
    "F_DUPFD": (72, 25, 3, 0),
    "is it a terminal": (16, 29, 1, 0x5401),
    "a thread's name": (157, 167, 15),
}
REFUSED = {
    "socket": (41, 198),
    "connect": (42, 203),
    "execve": (59, 221),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "setrlimit": (160, 164),
    "chmod": (268, 53),
    "unshare": (272, 97),
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "memfd_create": (319, 279),
    "unknown": (9999, 9999),
    "a process": (56, 220, 17),
    "a limit set": (302, 261, 0, 7, 0x100000000),
    "a limit set, low": (302, 261, 0, 7, 1),
    "a file emptied by reading": (257, 56, 0xFFFFFF9C, 1, 0o1000),
    "F_SETOWN": (72, 25, 3, 8),
    "typing into a terminal": (16, 29, 0, 0x5412),
    "PR_SET_PDEATHSIG": (157, 167, 1),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_through_what_is_listed_and_nothing_else(machine: str) -> None:
    which = 0 if machine == "x86_64" else 1
    for calls, expected in ((ALLOWED, ALLOW), (REFUSED, REFUSE)):
        for name, numbers in calls.items():
            assert decides(machine, numbers[which], *numbers[2:]) == expected, name
    assert decides(machine, 0x40000000) == REFUSE, "x32"
    assert decides(machine, 0, architecture=0x40000003) == REFUSE, "32 bits"


def test_another_machine_has_no_filter() -> None:
    assert system_call_filter("riscv64") == b""
