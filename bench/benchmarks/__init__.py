"""Experiment files, and the named benchmarks, which are experiment files that come with the package."""
