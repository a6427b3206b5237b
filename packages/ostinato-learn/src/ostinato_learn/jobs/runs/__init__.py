"""Runs and their results: directories, what is read of them, and what is compared."""
