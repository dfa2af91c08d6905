"""Which system calls a program in the sandbox may make: a list, compiled to a filter (seccomp's classic BPF).

* What is not on the list does not exist (ENOSYS, which libraries take for an old kernel): sockets, new processes,
  signals to others, ptrace, mounts, other limits, owners and times of files. A list of what is refused would forget.
* A few are there for some arguments only: `clone` for threads, `fcntl` and `ioctl` for what concerns descriptors.

Numbers: the kernel's asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64); "-": not there.
"""

from __future__ import annotations

import errno
import platform
import struct

# name:x86_64:aarch64
_ALLOWED = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
preadv2:327:286 pwritev2:328:287 lseek:8:62 close:3:57 close_range:436:436 dup:32:23 dup2:33:- dup3:292:24
pipe:22:- pipe2:293:59 stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291 statfs:137:43
fstatfs:138:44 access:21:- faccessat:269:48 faccessat2:439:439 readlink:89:- readlinkat:267:78 getdents:78:-
getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:-
unlinkat:263:35 rename:82:- renameat:264:38 renameat2:316:276 symlink:88:- symlinkat:266:36 link:86:-
linkat:265:37 ftruncate:77:46 fallocate:285:47 fsync:74:82 fdatasync:75:83 fadvise64:221:223 flock:73:32
umask:95:166 sendfile:40:71 copy_file_range:326:285 poll:7:- ppoll:271:73 select:23:- pselect6:270:72
epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22
epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 timerfd_create:283:85 timerfd_settime:286:86
timerfd_gettime:287:87 socketpair:53:199 mmap:9:222 munmap:11:215 mremap:25:216 mprotect:10:226 msync:26:227
mincore:27:232 madvise:28:233 brk:12:214 membarrier:324:283 mlock:149:228 munlock:150:229
get_mempolicy:239:236 futex:202:98 futex_waitv:449:449 set_robust_list:273:99 get_robust_list:274:100
set_tid_address:218:96 rseq:334:293 arch_prctl:158:- exit:60:93 exit_group:231:94 restart_syscall:219:128
wait4:61:260 waitid:247:95 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
rt_sigpending:127:136 rt_sigtimedwait:128:137 rt_sigsuspend:130:133 sigaltstack:131:132 pause:34:- alarm:37:-
getitimer:36:102 setitimer:38:103 nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113
clock_getres:229:114 gettimeofday:96:169 time:201:- times:100:153 getpid:39:172 getppid:110:173
gettid:186:178 getpgrp:111:- getpgid:121:155 getsid:124:156 getuid:102:174 geteuid:107:175 getgid:104:176
getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158 getrlimit:97:163 getrusage:98:165
getpriority:140:141 sched_yield:24:124 sched_getaffinity:204:123 sched_getparam:143:121
sched_getscheduler:145:120 sched_get_priority_max:146:125 sched_get_priority_min:147:126 getcpu:309:168
uname:63:160 sysinfo:99:179 getrandom:318:278
"""
_MACHINES = ("x86_64", "aarch64")
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # places in the kernel's struct seccomp_data, in bytes

_LOAD, _AND, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06  # classic BPF: on words
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS

_CLONE_THREAD, _TRUNCATE = 0x10000, 0o1000
# Descriptors' numbers and flags, locks, a pipe's size; not F_SETOWN and F_SETSIG, by which the kernel signals others.
_FCNTL = (*range(8), 36, 37, 38, 1030, 1032)
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, its size, bytes to read, (non)blocking
_PRCTL = (15, 16, 0x53564D41)  # names of threads and of memory
_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def system_call_filter(machine: str = "") -> bytes:
    """The filter for the `machine` (the present one), as the kernel takes it: struct sock_filter, one a row.

    Empty where it is not known how the machine numbers its calls.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        return b""
    rows: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine])]
    rows += [(_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, _NUMBER)]
    for entry in _ALLOWED.split():
        number = entry.split(":")[1 + _MACHINES.index(machine)]
        if number != "-":
            rows += [(_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _ALLOW)]
    for call, checks in _conditional(machine).items():
        rows += [(_EQUAL, 0, len(checks), call), *checks]  # a block always returns
    rows.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def _conditional(machine: str) -> dict[int, list[_Instruction]]:
    """System call -> what decides over it."""
    x86 = machine == "x86_64"
    threads = [_argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    asks_only = [_argument(2), (_EQUAL, 0, 3, 0), _argument(2, 4), (_EQUAL, 0, 1, 0)]
    asks_only += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]  # prlimit64 without new limits
    found = {
        (56 if x86 else 220): threads,
        (302 if x86 else 261): asks_only,
        (72 if x86 else 25): _one_of(1, _FCNTL),
        (16 if x86 else 29): _one_of(1, _IOCTL),
        (157 if x86 else 167): _one_of(0, _PRCTL),
        (257 if x86 else 56): _not_to_empty(2),  # openat
    }
    return found | ({2: _not_to_empty(1)} if x86 else {})  # open


def _argument(number: int, half: int = 0) -> _Instruction:
    return _LOAD, 0, 0, _ARGUMENTS + 8 * number + half


def _one_of(argument: int, values: tuple[int, ...]) -> list[_Instruction]:
    rows = [_argument(argument)]
    for value in values:
        rows += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*rows, (_RETURN, 0, 0, _REFUSE)]


def _not_to_empty(argument: int) -> list[_Instruction]:
    """No O_RDONLY | O_TRUNC, which empties a file and which Landlock before Linux 6.2 takes for reading."""
    mask = (_AND, 0, 0, _TRUNCATE | 3)
    return [_argument(argument), mask, (_EQUAL, 0, 1, _TRUNCATE), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
