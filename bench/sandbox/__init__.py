"""Code that nobody vouches for, in a process of its own: it is asked for answers, and sees neither labels nor machine.

The layers, from the outside in, and what each gives and does not give:

1. A process of its own (`box`), with an empty environment, that talks through two pipes in JSON and safetensors
   (`wire`). Nothing is ever unpickled. What it says of itself is taken for text, what it answers for numbers.
2. Limits: seconds for each answer, processor time, memory, size of files, number of open files. They end what hangs
   or grows; they do not stop it from using all that they allow.
3. Landlock (Linux 5.13 or newer): the kernel lets it read the interpreter, the packages and its own code, write its
   own empty folder, and open nothing else. Sizes and names of other files can still be asked for.
4. seccomp: the kernel refuses sockets, new processes, new programs, and looking into other processes. It is a list of
   what is refused, not of what is allowed: a hole in another system call of the kernel stays a hole.
5. Namespaces, where the machine lets users have them: a network without any device. An addition to 4, not needed.
6. Audit hooks of Python: they know what was tried and end the process with words for it. Code that goes around Python
   (ctypes) passes them, and meets 3 and 4.

Without 2, 3 and 4 nothing is run (`IsolationError`). Against labels: they are not in the process; the files that they
could be made from are hidden; rows come in a random order; the streams of random numbers are keyed anew, so that they
tell no image's place; and who is asked for gradients, which tell the label, is another process than who is judged.
What remains: code or weights that know the evaluated images by heart. Only other images can show that, and
`bench verify` tries some. Nor is there a wall against two processes that whisper through the load of the machine.
"""
