"""Plugins by name: their registry, the grammar of their texts, chains, and fingerprints of their code."""
