"""What the building blocks cost, each against a limit measured in the same run: `python -m benchmarks`."""
