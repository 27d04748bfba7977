"""The tables of the pages on validation, performance and frameworks, made from the results of the benchmarks."""
