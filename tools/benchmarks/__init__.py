"""What tools/benchmark.py measures: each row a module with `measure(args) -> list[Table]`."""
