"""W1: the dual, the interval, fitted critics, bounds for populations, and the estimate that joins them."""
