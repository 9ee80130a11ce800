"""defense-bench: attacks crossed with defenses of image classifiers, with numbers that can be checked."""

__version__ = "0.1.0"
