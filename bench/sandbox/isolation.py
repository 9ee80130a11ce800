"""What the kernel and Python refuse to untrusted code; a process raises these walls around itself, for good."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.sandbox.system_calls import ALLOWED, CLONE, CLONE3, MACHINES, MMAP, OPEN, RESTRICTED, TO_ITSELF

FORBIDDEN = "forbidden: "
"""How the line on the standard error begins in which the process says what it was ended for."""

MESSAGES = 2**20
"""Bytes that the process may write to its standard error, the only file that it can write to."""

_libc = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_THREAD, _NAMESPACES = 0x00010000, 0x7E020000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

# Landlock's rights, as bits; which ones a kernel knows depends on its version of the interface.
_EXECUTE, _READ, _LIST = 1, 4, 8
_OF_FILES = _EXECUTE | _READ
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15}


class IsolationError(RuntimeError):
    """This machine cannot isolate untrusted code; the text says what it lacks."""


def shut_in(readable: Iterable[Path], listed: Iterable[Path], processor: int, memory: int) -> list[str]:
    """Raises the kernel's walls around this process, for good; returns their names.

    Args:
        readable: files and folders that may be read, with everything in them.
        listed: folders whose names may be listed.
        processor: seconds of processor time.
        memory: bytes that it may use beyond those it uses already.

    Raises:
        IsolationError: a wall that must not be missing cannot be raised here.
    """
    if lack := lacking():
        raise IsolationError(lack)
    if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:  # the walls stand around one thread and what it starts
        raise IsolationError("the process has other threads before its walls stand")
    walls = ["limits", "Landlock", "seccomp"]
    if _libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_IPC) == 0:
        walls.append("network namespace")
        resource.setrlimit(resource.RLIMIT_NPROC, (512, 512))  # counted inside the namespace, so for this process alone
    used = dict(line.split(":") for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    for what, limit in (
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_DATA, memory + 1024 * int(used["VmData"].split()[0])),
        (resource.RLIMIT_FSIZE, MESSAGES),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    if _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise IsolationError("the kernel refuses no_new_privs")
    _landlock(readable, listed)
    _seccomp()
    return walls


def lacking() -> str:
    """What this machine lacks to isolate untrusted code, "" if nothing."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return f"it needs Linux on x86_64 or aarch64, and this is {sys.platform} {platform.machine()}"
    if _landlock_version() < 1:
        return "the kernel has no Landlock (Linux 5.13 or newer, with 'landlock' among its security modules)"
    return ""


def _landlock(readable: Iterable[Path], listed: Iterable[Path]) -> None:
    """Nothing can be written; what is not named can be neither read nor listed."""
    version = _landlock_version()
    rights = (1 << _KNOWN.get(version, 16)) - 1
    fields = (rights,) if version < 4 else (rights, 3) if version < 6 else (rights, 3, 3)  # files, TCP, signals
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = _libc.syscall(444, attributes, len(attributes), 0)
    if rules < 0:
        raise IsolationError(f"Landlock refuses its rules: {os.strerror(ctypes.get_errno())}")
    for paths, allowed in ((readable, _READ | _LIST | _EXECUTE), (listed, _LIST)):
        for path in paths:
            _allow(rules, path, allowed)
    if _libc.syscall(446, rules, 0):
        raise IsolationError(f"Landlock cannot be switched on: {os.strerror(ctypes.get_errno())}")
    os.close(rules)


def _landlock_version() -> int:
    return int(_libc.syscall(444, None, 0, 1))


def _allow(rules: int, path: Path, allowed: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what does not exist needs no permission
        return
    try:
        if not path.is_dir():
            allowed &= _OF_FILES
        if allowed and _libc.syscall(445, rules, 1, struct.pack("=Qi", allowed, handle), 0):
            raise IsolationError(f"Landlock refuses a rule for {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)


def _seccomp() -> None:
    """A filter of system calls for this process and all its threads: what is not allowed is refused with EPERM."""
    column, architecture = MACHINES[platform.machine()]
    load, equal, at_least, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, _KILL), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (end, 0, 0, refuse)]  # a second set of numbers on x86_64
    for numbers in ALLOWED.values():
        if numbers[column] >= 0:
            program += [(equal, 0, 1, numbers[column]), (end, 0, 0, _ALLOW)]
    itself = {name: (numbers, 0, (os.getpid(), *others)) for name, (numbers, others) in TO_ITSELF.items()}
    for numbers, argument, values in (RESTRICTED | itself).values():
        count = len(values)
        program += [(equal, 0, count + 3, numbers[column]), (load, 0, 0, 16 + 8 * argument)]
        program += [(equal, count - place, 0, value) for place, value in enumerate(values)]
        program += [(end, 0, 0, refuse), (end, 0, 0, _ALLOW)]
    for numbers, argument in OPEN.values():
        if numbers[column] >= 0:
            program += [(equal, 0, 4, numbers[column]), (load, 0, 0, 16 + 8 * argument), (any_bit, 0, 1, _WRITING)]
            program += [(end, 0, 0, refuse), (end, 0, 0, _ALLOW)]
    program += [(equal, 0, 5, CLONE[column]), (load, 0, 0, 16), (any_bit, 1, 0, _NAMESPACES)]
    program += [(any_bit, 1, 0, _THREAD), (end, 0, 0, refuse), (end, 0, 0, _ALLOW)]
    program += [(equal, 0, 5, MMAP[column]), (load, 0, 0, 16 + 8 * 3), (any_bit, 0, 2, mmap.MAP_SHARED)]
    program += [(any_bit, 0, 1, mmap.MAP_ANONYMOUS), (end, 0, 0, refuse), (end, 0, 0, _ALLOW)]
    program += [(equal, 0, 1, CLONE3), (end, 0, 0, absent)]  # its flags cannot be seen; libraries then use `clone`
    program += [(end, 0, 0, refuse)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(whole), 0, 0):
        raise IsolationError(f"the kernel refuses a seccomp filter: {os.strerror(ctypes.get_errno())}")


_PROCESSES = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.", "os.kill")
_MACHINE = {"/proc", "/sys", "/dev", "/etc", "/run", "/usr"}
"""System files that libraries probe; they are refused without ending the process."""


def watch(readable: Sequence[Path], labels: Sequence[Path]) -> None:
    """From now on ends this process, with words for it, when Python code tries what is forbidden.

    Args:
        readable: as for `shut_in`.
        labels: files that the labels could be made from.
    """
    allowed = {os.path.realpath(path) for path in readable}
    parents = {str(parent) for path in allowed for parent in Path(path).parents}
    hidden = {os.path.realpath(path) for path in labels}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith("socket."):
            _end(f"opened a socket ({event})")
        if event.startswith(_PROCESSES):
            _end(f"started or signalled a process ({event})")
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path in hidden:
                _end(f"looked for the labels (opened {path})")
            above = {path, *map(str, Path(path).parents)}
            if above & allowed or path in parents or not os.path.lexists(path):  # the kernel has the last word
                return
            if above & _MACHINE:
                raise PermissionError(errno.EACCES, "not for untrusted code", path)
            _end(f"looked outside its folder ({event} {path})")

    sys.addaudithook(look)


def _end(what: str) -> NoReturn:
    os.write(2, f"\n{FORBIDDEN}{what}\n".encode(errors="replace"))
    os._exit(77)
