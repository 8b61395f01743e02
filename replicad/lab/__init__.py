"""The simulator, the checkers and the benchmarks."""
