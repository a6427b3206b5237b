"""Structures of tensors: a tensor, or any tuple, list or dict of structures.

PyTorch's own `torch.utils._pytree` is private. It also keeps every tensor alive until the cycle
collector runs, since a closure that refers to itself holds its list of leaves.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

# Subclasses of dict whose constructors do not take key-value pairs; they count as leaves.
_NOT_MADE_OF_PAIRS = (collections.defaultdict, collections.Counter)
Spec = Any  # None for a leaf; else (type, keys of a dict or None, specs of the parts)


def flatten(tree: Any) -> tuple[list[Any], Spec]:
    """The leaves of a structure in order, and its spec: the structure without them, hashable."""
    if not isinstance(tree, (tuple, list, dict)) or isinstance(tree, _NOT_MADE_OF_PAIRS):
        return [tree], None
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a structure, in order."""
    return flatten(tree)[0]


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The structure with every leaf replaced by `function(leaf)`."""
    found, spec = flatten(tree)
    return unflatten([function(leaf) for leaf in found], spec)


def unflatten(leaves: Any, spec: Spec) -> Any:
    """The structure of `spec` with these leaves: the inverse of `flatten`."""
    if spec is None:
        (leaf,) = leaves
        return leaf
    return _unflatten(iter(leaves), spec)


def _flatten(tree: Any, leaves: list[Any]) -> Spec:
    if isinstance(tree, (tuple, list)):
        return type(tree), None, tuple([_flatten(part, leaves) for part in tree])
    if isinstance(tree, dict) and not isinstance(tree, _NOT_MADE_OF_PAIRS):
        parts = tuple([_flatten(part, leaves) for part in tree.values()])
        return type(tree), tuple(tree), parts
    leaves.append(tree)
    return None


def _unflatten(leaves: Iterator[Any], spec: Spec) -> Any:
    if spec is None:
        return next(leaves)
    kind, keys, parts = spec
    values = [_unflatten(leaves, part) for part in parts]
    if keys is not None:
        return kind(zip(keys, values, strict=True))
    return kind(*values) if hasattr(kind, "_fields") else kind(values)
