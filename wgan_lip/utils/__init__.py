"""Checks, whole-file writes, numbers, devices, clusters: what every room may use."""
