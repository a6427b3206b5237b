"""Programs of the engine: their form, their meaning in NumPy, the native module."""
