"""Programs, which the engine plays: their form, their meaning in NumPy, the native module."""
