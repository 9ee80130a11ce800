"""Contract checks of a plugin."""
