"""A run on disk: folder, checkpoints, tracking, export, resuming."""
