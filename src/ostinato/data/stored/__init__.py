"""Sequences and series in files, for data larger than memory."""
