"""From a Python step to a recording: guards, captured tensors, ATen calls."""
