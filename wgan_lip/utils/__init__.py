"""Checks, whole-file writes, numbers, devices, clusters: helpers for every part of the package."""
