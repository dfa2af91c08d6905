"""Runs in the sandbox's own interpreter, as a file, without the package: locks itself up, runs a program, its tests.

* stdin holds the job (JSON: process.py); the descriptor named on the command line leads to who started this.
* `ready` is written there when the door is shut, then the reason why the program failed, or the token, which lies in
  that descriptor and is read after the tests: while the program runs it is nowhere in this process.
* The door: limits, namespaces ("full"), Landlock, the filter of system calls; each by the C library's own functions.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import fcntl
import json
import math
import os
import resource
import signal
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

PROGRAM, TESTS = "<program>", "<tests>"
USED_UP = b"used up its CPU time"
LONGEST_REASON = 300  # characters
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")
_PLAIN = (int, float, str, bytes, bool, complex, type(None))

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Ends the process: 0 if the tests have passed, which only the token proves."""
    line = moved(int(sys.argv[1]), 100 + os.urandom(1)[0] % 128)
    with os.fdopen(0, "rb", closefd=False) as stdin:
        job = json.loads(stdin.read())
    os.dup2(1, 0)  # both /dev/null from here on
    sys.argv[:] = [""]
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != here] + job["packages"]
    os.environ["TMPDIR"] = job["folder"]
    try:
        _lock_up(job, line)
    except (OSError, AttributeError) as error:
        os.write(line, f"locked out: {error}".encode())
        os._exit(1)
    os.write(line, b"ready\n")
    _run(job["program"], job["tests"], line)


def moved(descriptor: int, least: int) -> int:
    """The descriptor under another number, the first that is free from `least` on, and no longer under its own."""
    found = fcntl.fcntl(descriptor, fcntl.F_DUPFD, least)
    os.close(descriptor)
    return found


# ---- the program and its tests


def _run(program: str, tests: str, line: int) -> NoReturn:
    # What this function still needs, out of a program's reach.
    read, write, leave, run, say = os.read, os.write, os._exit, exec, _reason
    known = dict(vars(builtins))
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module  # for dataclasses and the like; not this file
    names = vars(module)

    def used_up(number: int, frame: Any) -> NoReturn:
        write(line, USED_UP)
        leave(1)

    signal.signal(signal.SIGXCPU, used_up)
    try:
        look, marked = _with_looked_at_answers(tests)
        run(compile(program, PROGRAM, "exec"), names)
        vars(builtins).update(known)
        names["__builtins__"] = builtins
        names[look] = _answer
        run(marked, names)
    except BaseException as error:  # SystemExit is one
        write(line, say(error).encode(errors="replace"))
        leave(1)
    write(line, read(line, 64))
    leave(0)


def _reason(error: BaseException) -> str:
    """One line: the exception, what it says, and where."""
    try:
        said = " ".join(str(error).split())
    except BaseException:  # the program may have written it
        said = ""
    place, trace = "", error.__traceback__
    while trace is not None:
        if (file := trace.tb_frame.f_code.co_filename) in (PROGRAM, TESTS):
            place = f"line {trace.tb_lineno} of the {file[1:-1]}"
        trace = trace.tb_next
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{what[:LONGEST_REASON]} ({place})" if place else what[:LONGEST_REASON]


class FakedAnswerError(Exception):
    """A program's answer decides itself what it is equal to."""


def _with_looked_at_answers(tests: str) -> tuple[str, types.CodeType]:
    """The tests, in which everything that they compare goes through `_answer`; and the name that it has there."""
    look = f"answer_{os.urandom(8).hex()}"

    class Looking(ast.NodeTransformer):
        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            sides: list[ast.expr] = [
                ast.Call(func=ast.Name(id=look, ctx=ast.Load()), args=[side], keywords=[])
                for side in (node.left, *node.comparators)
            ]
            return ast.copy_location(ast.Compare(left=sides[0], ops=node.ops, comparators=sides[1:]), node)

    tree = ast.fix_missing_locations(Looking().visit(ast.parse(tests, TESTS)))
    return look, compile(tree, TESTS, "exec")


def _answer(value: Any) -> Any:
    """The value; FakedAnswerError if it, or something in it, compares by code of the program or equals anything."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind in _PLAIN or id(one) in seen:
            continue
        seen.add(id(one))
        if any(_from_program(getattr(kind, name, None)) for name in _COMPARISONS) or _equals_anything(one):
            raise FakedAnswerError(f"an answer of type {kind.__name__} decides itself what it is equal to")
        if isinstance(one, list | tuple | set | frozenset):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend((*one.keys(), *one.values()))
    return value


def _from_program(method: Any) -> bool:
    if isinstance(method, types.FunctionType):
        return method.__code__.co_filename == PROGRAM
    return type(method).__module__ == "program"


def _equals_anything(one: Any) -> bool:
    try:
        return (one == object()) is True
    except Exception:
        return False


# ---- the door


def _lock_up(job: dict[str, Any], line: int) -> None:
    """OSError if the kernel refuses a step that the job's level needs."""
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with who started this
    if os.getppid() != job["parent"]:  # who has ended already
        os._exit(1)
    _set_limits(job)
    level = job["level"]
    if level == "full":
        _enter_namespaces(job, line)
    os.chdir(job["folder"])
    if level == "weak":
        return
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    _shut_files(job, needed=level == "kernel")
    _filter_calls(bytes.fromhex(job["filter"]))


def _set_limits(job: dict[str, Any]) -> None:
    """Memory counts from what this interpreter has by now, so that it is the program's own."""
    own = 0
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
    seconds = math.ceil(job["seconds"])
    wanted = {
        "RLIMIT_AS": (own + job["memory"],) * 2,
        "RLIMIT_CPU": (seconds, seconds + 1),  # a signal, which says why the program ends, then the end
        "RLIMIT_FSIZE": (job["file_size"],) * 2,
        "RLIMIT_NOFILE": (256, 256),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_STACK": (8 << 20,) * 2,
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
    }
    for name, values in wanted.items():
        if (number := getattr(resource, name, None)) is not None:
            most = resource.getrlimit(number)[1]
            own_most = math.inf if most == resource.RLIM_INFINITY else most
            try:
                resource.setrlimit(number, (int(min(values[0], own_most)), int(min(values[1], own_most))))
            except (OSError, ValueError):
                if job["level"] != "weak":  # macOS refuses some
                    raise


def _enter_namespaces(job: dict[str, Any], line: int) -> None:
    """A new user, network, process and file tree. Returns in the first process of it; this one waits for that."""
    user, group = os.geteuid(), os.getegid()
    # CLONE_NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    _check(_libc.unshare(0x20000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    child = os.fork()
    if child:
        os.close(line)
        status = os.waitpid(child, 0)[1]
        os._exit(1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    _prctl(1, signal.SIGKILL)
    _enter_new_root(job)


def _enter_new_root(job: dict[str, Any]) -> None:
    """A file tree with what may be read, read-only, and an empty work folder in memory."""
    root, folder = job["folder"], job["folder"]
    no_suid_no_dev = 2 | 4
    _mount(None, "/", None, 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE
    _mount("tmpfs", root, "tmpfs", no_suid_no_dev, "size=1m,mode=755")
    for path in (*job["readable"], *job["devices"]):
        target = root + path
        if os.path.isdir(path):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        _mount(path, target, None, 0x1000 | 0x4000)  # MS_BIND | MS_REC
        _set_mount(target, 1 | 2 | 8 if path in job["devices"] else 1 | 2 | 4)  # read-only, nosuid; noexec or nodev
    work = root + folder
    os.makedirs(work)
    _mount("tmpfs", work, "tmpfs", no_suid_no_dev, f"size={job['folder_size']},mode=700")
    _mount(None, root, None, 0x20 | 0x1000 | 1 | no_suid_no_dev)  # MS_REMOUNT | MS_BIND | MS_RDONLY
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", 2), "umount2")  # MNT_DETACH: the old tree, which lies over the new one


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [word if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount of {target}")


def _set_mount(path: str, attributes: int) -> None:
    """mount_setattr (Linux 5.12): adds these to a mount and to all below it."""
    wanted = struct.pack("<QQQQ", attributes, 0, 0, 0)
    recursively = 0x8000
    _check(_call(442, -100, os.fsencode(path), recursively, wanted, len(wanted)), f"mount_setattr of {path}")


def _shut_files(job: dict[str, Any], needed: bool) -> None:
    """Landlock: reading where it is allowed, writing in the work folder, no TCP, no signals out."""
    version = _call(444, None, 0, 1)
    if version < 1:
        if needed:
            _check(-1, "Landlock")
        return
    all_files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    read, write_file = 4 | 8, 2  # READ_FILE, READ_DIR
    fields = (all_files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)[: 1 + (version >= 4) + (version >= 6)]
    ruleset = struct.pack(f"<{len(fields)}Q", *fields)
    handle = _check(_call(444, ruleset, len(ruleset), 0), "landlock_create_ruleset")
    rules = [(path, read) for path in job["readable"]]
    rules += [(path, 4 | write_file) for path in job["devices"]]
    for path, rights in (*rules, (job["folder"], all_files)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= 4 | write_file
        rule = struct.pack("<Qi", rights, place)  # packed, as the kernel's struct is
        _check(_call(445, handle, 1, rule, 0), f"landlock_add_rule of {path}")
        os.close(place)
    _check(_call(446, handle, 0), "landlock_restrict_self")
    os.close(handle)


def _filter_calls(rows: bytes) -> None:
    """seccomp: from here on only the system calls that the filter lets through (system_calls.py)."""
    if not rows:
        raise OSError("how this machine numbers its system calls is not known")
    held = ctypes.create_string_buffer(rows, len(rows))

    class Filter(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("rows", ctypes.c_void_p))

    program = Filter(len(rows) // 8, ctypes.addressof(held))
    _prctl(22, 2, ctypes.byref(program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _prctl(option: int, value: Any, pointer: Any = None) -> None:
    prctl: Callable[..., int] | None = getattr(_libc, "prctl", None)  # not on macOS
    if prctl is not None:
        _check(prctl(option, ctypes.c_ulong(value), pointer, None, None), f"prctl {option}")


def _call(number: int, *arguments: Any) -> int:
    """A system call by its number: those that have the same one on every machine."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return result


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


if __name__ == "__main__":
    main()
