"""ostinato against PyTorch, JAX and Keras, in one process and one run: see README.md."""
