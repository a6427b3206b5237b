"""Playing a program on tensors, as one differentiable operation."""
