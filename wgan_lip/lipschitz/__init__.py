"""Bounds, layers, certificates, the search for slopes: what proves a Lipschitz constant, and what tests the proof."""
