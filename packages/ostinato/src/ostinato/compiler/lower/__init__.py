"""From the step graph to a program: an ordered list of passes. Imports no torch."""
