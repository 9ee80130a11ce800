"""The system calls of Linux that untrusted code may make, on x86_64 and aarch64; whatever is not here is refused."""

from __future__ import annotations

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> its column in the tables below, and how the kernel's filters name it."""

ALLOWED = {
    # reading what Landlock lets it open
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "lseek": (8, 62), "close": (3, 57),
    "close_range": (436, 436), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24), "stat": (4, -1),
    "lstat": (6, -1), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, -1),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, -1), "readlinkat": (267, 78),
    "getdents64": (217, 61), "getcwd": (79, 17),
    # answering: the pipe and the standard error are all that is open for writing
    "write": (1, 64), "writev": (20, 66),
    # memory
    "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "membarrier": (324, 283),
    # threads, and the end of one or all of them
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "arch_prctl": (158, -1),
    # signals to itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # clocks, waiting, and what a process may know of itself and of the machine
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165), "poll": (7, -1),
    "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278), "getrlimit": (97, 163),
}  # fmt: skip
"""Name -> its number on each machine, -1 where it has none."""

RESTRICTED = {
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 1030)),  # duplicates and flags; no locks, owners, leases or pipe sizes
    "ioctl": ((16, 29), 1, (0x5401, 0x5450, 0x5451, 0x541B)),  # is it a terminal, close on exec, bytes to read
    "prctl": ((157, 167), 0, (15, 16, 0x53564D41)),  # names of threads and of memory
}
"""Name -> numbers, which argument is looked at, and the values of it that are allowed."""

OPEN = {"open": ((2, -1), 1), "openat": ((257, 56), 2)}
"""Name -> numbers, and which argument has the flags, of which those that write, create or truncate are refused."""

TO_ITSELF = {"kill": ((62, 129), ()), "tgkill": ((234, 131), ()), "prlimit64": ((302, 261), (0,))}
"""Name -> numbers, and what may stand for the process beside its own number."""

CLONE, CLONE3 = (56, 220), 435
"""Threads may be started; processes and namespaces may not."""

MMAP = (9, 222)
"""Memory may be private, or a file's; shared memory of no file is refused, since no limit counts it."""
