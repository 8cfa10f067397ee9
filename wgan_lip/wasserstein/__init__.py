"""W1: the dual, the interval, fitted critics, bounds on the laws, and the estimate that combines them."""
