"""What the kernel and Python refuse to untrusted code; to be raised by the process itself, before it has threads."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

FORBIDDEN, NO_ISOLATION = "forbidden: ", "no isolation: "
"""How the lines begin in which the process says why it ended."""

_libc = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_NEW_USER, _NEW_NETWORK, _NEW_IPC, _THREAD = 0x10000000, 0x40000000, 0x08000000, 0x00010000
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

# Landlock's rights, as bits; which ones a kernel knows depends on its version of the interface.
_EXECUTE, _READ, _LIST = 1, 4, 8
_OF_FILES = _EXECUTE | 2 | _READ | 1 << 14 | 1 << 15
_WRITE = (2 | _READ | _LIST | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | 1 << 14) & ~_EXECUTE
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15}

# System call -> its number on (x86_64, aarch64); -1 where the machine has none.
_REFUSED = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "reboot": (169, 142),
}  # fmt: skip
_TO_ITSELF = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
_CLONE, _CLONE3 = (56, 220), 435
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class IsolationError(RuntimeError):
    """This machine cannot shut untrusted code in; the text says what it lacks."""


def shut_in(own: Path, readable: Iterable[Path], listed: Iterable[Path], seconds: int) -> list[str]:
    """Raises the walls of the kernel around this process, for good; returns the names of those that stand.

    Args:
        own: the one folder that may be written.
        readable: files and folders that may be read, with all that is in them.
        listed: folders whose names may be listed.
        seconds: of processor time.

    Raises:
        IsolationError: a wall that nobody may be without cannot be raised here.
    """
    if lack := lacking():
        raise IsolationError(lack)
    walls = ["limits", "Landlock", "seccomp"]
    if _libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_IPC) == 0:
        walls.append("network namespace")
        resource.setrlimit(resource.RLIMIT_NPROC, (512, 512))  # counted inside the namespace, so for this process alone
    for what, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 2**28),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    if _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise IsolationError("the kernel refuses no_new_privs")
    _landlock(own, readable, listed)
    _seccomp()
    return walls


def lacking() -> str:
    """What this machine lacks to shut untrusted code in, "" if nothing."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return f"it needs Linux on x86_64 or aarch64, and this is {sys.platform} {platform.machine()}"
    if _landlock_version() < 1:
        return "the kernel has no Landlock (Linux 5.13 or newer, with 'landlock' among its security modules)"
    return ""


def limit_memory(more: int) -> None:
    """Lets this process map that many bytes beyond those it has mapped already."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _landlock(own: Path, readable: Iterable[Path], listed: Iterable[Path]) -> None:
    version = _landlock_version()
    rights = (1 << _KNOWN.get(version, 16)) - 1
    fields = (rights,) if version < 4 else (rights, 3) if version < 6 else (rights, 3, 3)  # files, TCP, signals
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = _libc.syscall(444, attributes, len(attributes), 0)
    if rules < 0:
        raise IsolationError(f"Landlock refuses its rules: {os.strerror(ctypes.get_errno())}")
    for paths, allowed in ((readable, _READ | _LIST | _EXECUTE), (listed, _LIST), ([own], _WRITE)):
        for path in paths:
            _allow(rules, path, allowed & rights)
    if _libc.syscall(446, rules, 0):
        raise IsolationError(f"Landlock cannot be switched on: {os.strerror(ctypes.get_errno())}")
    os.close(rules)


def _landlock_version() -> int:
    return int(_libc.syscall(444, None, 0, 1))


def _allow(rules: int, path: Path, allowed: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there needs no permission
        return
    try:
        if not path.is_dir():
            allowed &= _OF_FILES
        if allowed and _libc.syscall(445, rules, 1, struct.pack("=Qi", allowed, handle), 0):
            raise IsolationError(f"Landlock refuses a rule for {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)


def _seccomp() -> None:
    """A filter of system calls for this process and all its threads."""
    column, architecture = _MACHINES[platform.machine()]
    load, equal, at_least, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, _KILL), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (end, 0, 0, refuse)]  # a second set of numbers on x86_64
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            program += [(equal, 0, 1, numbers[column]), (end, 0, 0, refuse)]
    for name, numbers in _TO_ITSELF.items():
        program += [(equal, 0, 5, numbers[column]), (load, 0, 0, 16), (equal, 2, 0, os.getpid())]
        program += [(equal, 1, 0, 0 if name == "prlimit64" else os.getpid()), (end, 0, 0, refuse), (end, 0, 0, _ALLOW)]
    program += [(equal, 0, 1, _CLONE3), (end, 0, 0, absent)]  # its flags cannot be seen; libraries then use `clone`
    program += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_bit, 1, 0, _THREAD), (end, 0, 0, refuse)]
    program += [(end, 0, 0, _ALLOW), (end, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(whole), 0, 0):
        raise IsolationError(f"the kernel refuses a seccomp filter: {os.strerror(ctypes.get_errno())}")


_PROCESSES = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.", "os.kill")
_MACHINE = {"/proc", "/sys", "/dev", "/etc", "/run", "/usr"}
"""System files that libraries probe; they are refused without ending the process."""


def watch(own: Path, readable: Sequence[Path], labels: Sequence[Path]) -> None:
    """From now on ends this process, with words for it, when Python code tries what is forbidden.

    Args:
        own, readable: as for `shut_in`.
        labels: files that the labels could be made from.
    """
    allowed = {os.path.realpath(one) for one in (own, *readable)}
    parents = {str(parent) for one in allowed for parent in Path(one).parents}
    hidden = {os.path.realpath(one) for one in labels}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket."):
            _end(f"opened a socket ({event})")
        if event.startswith(_PROCESSES):
            _end(f"started or signalled a process ({event})")
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path in hidden:
                _end(f"looked for the labels (opened {path})")
            above = {path, *(str(one) for one in Path(path).parents)}
            if above & allowed or path in parents or not os.path.lexists(path):  # the kernel has the last word
                return
            if above & _MACHINE:
                raise PermissionError(errno.EACCES, "not for untrusted code", path)
            _end(f"looked outside its folder ({event} {path})")

    sys.addaudithook(look)


def _end(what: str) -> NoReturn:
    os.write(2, f"\n{FORBIDDEN}{what}\n".encode())
    os._exit(77)
