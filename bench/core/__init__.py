"""What every wing stands on: random streams, goals, budgets, files and text."""
