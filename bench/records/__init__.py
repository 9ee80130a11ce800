"""Records: schema, store, metrics and exports. Nothing here imports torch."""
