"""Adapters for packages whose loops need more than `ostinato.accelerate(model, loops=True)`.

Each is imported by itself, and imports its package: `integrations.torchsde.sdeint` takes the place
of `torchsde.sdeint`. docs/packages.md lists them.
"""
