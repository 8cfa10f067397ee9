"""What a run did: findings, exploration of a critic in space, comparison of runs, pages."""
