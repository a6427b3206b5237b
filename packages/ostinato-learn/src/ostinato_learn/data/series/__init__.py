"""Series of numbers over time, and windows of them."""
