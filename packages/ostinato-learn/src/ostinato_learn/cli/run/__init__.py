"""One run: its configuration, data, directory and results."""
