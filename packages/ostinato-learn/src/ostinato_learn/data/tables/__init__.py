"""Tables as sequences: columns, their roles, and the shapes that a table may have."""
