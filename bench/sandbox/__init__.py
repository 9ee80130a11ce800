"""Untrusted code in processes of its own: it is asked for answers, and sees neither labels nor the machine.

The layers, from the outside in:

1. Processes of its own (`process`, `forkserver`), with an empty environment, which talk through two pipes in JSON and
   safetensors (`wire`). Nothing is ever unpickled. What they say of themselves is text, what they answer is numbers.
2. One process at a time (`boxes`). Attackers share one; each judgement gets a fresh one, so that nothing that was
   learned from gradients or from clean images helps on attacked ones.
3. Limits: seconds for each answer and in all, processor time, memory, number of open files and of threads. No file can
   be written, so disk needs no limit; memory is private, so the limit counts all of it.
4. Landlock (Linux 5.13 or newer): the kernel lets it read the interpreter, the packages and its own code, and open
   nothing else.
5. seccomp: the kernel allows the system calls in `system_calls` and refuses all others: sockets, processes, locks,
   pipes, shared memory, timers, and changes of files, of their times and modes, and of priorities.
6. Namespaces, where the machine lets users have them: a network without any device. An addition to 5, not needed.
7. Audit hooks of Python: they see what was tried and end the process with words for it. Code that goes around Python
   (ctypes) avoids them, and meets 4 and 5.

Without 3, 4 and 5 nothing runs (`IsolationError`). Against labels: they are not in the process; the files that they
could be made from are hidden; rows come in a random order; random streams are keyed anew, so that they give away no
image's place; and a process that is asked for gradients, which reveal labels, is never judged.

What the walls do not hold is listed in CONTRIBUTING.md.
"""
