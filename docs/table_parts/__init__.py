"""The tables of the pages on validation and performance, made from the results of the benchmarks."""
