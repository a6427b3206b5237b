"""The backward graph: which gradients live, what is kept, how weight gradients are gathered."""
