"""From a recording to the step graph: ATen calls become named operations."""
