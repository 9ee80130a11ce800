"""The command line: argv to the other wings, nothing else."""
