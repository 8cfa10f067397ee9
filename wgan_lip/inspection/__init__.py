"""What a run did: findings, exploration of a critic, comparison of runs, pages."""
