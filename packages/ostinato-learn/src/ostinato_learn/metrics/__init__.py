"""Measures of answers, and the naive forecasts that a network has to beat."""
