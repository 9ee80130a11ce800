"""Names to plugins: registry, specs, chains, source code."""
