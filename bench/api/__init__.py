"""The call from Python: `bench.evaluate`, `bench.attack` and `bench.defend`, for models and images in memory."""
