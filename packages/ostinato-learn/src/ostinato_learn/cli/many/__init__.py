"""Many trainings of one command: workers and clusters for `cv` and `tune`, and trials."""
