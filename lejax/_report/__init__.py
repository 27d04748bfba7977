"""The report on a network: what its spectrum, vectors and fixed points say, computed once and written as one page."""
