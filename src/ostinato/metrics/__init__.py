"""Measures of answers, and the simple methods that a forecast or a language model has to beat."""
