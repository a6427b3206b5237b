"""The backward graph: live gradients, saved values, and sums of weight gradients."""
