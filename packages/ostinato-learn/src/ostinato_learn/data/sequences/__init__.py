"""Sequences and what belongs to each: labels, batches, splits, preparation."""
