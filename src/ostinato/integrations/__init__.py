"""Adapters for packages whose loops need more than `ostinato.accelerate(model, loops=True)`.

Each is imported by itself, and imports its package: `from ostinato.integrations.torchsde import
sdeint` in the place of `from torchsde import sdeint`. docs/packages.md lists them.
"""
