"""Structures of tensors: a tensor, or any tuple, list or dict of structures.

PyTorch's own `torch.utils._pytree` is private. It also keeps every tensor alive until the cycle
collector runs, since a closure that refers to itself holds its list of leaves.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Subclasses of dict whose constructors do not take key-value pairs; they count as leaves.
_NOT_MADE_OF_PAIRS = (collections.defaultdict, collections.Counter)
_STRUCTURES = (tuple, list, dict)
Spec = Any  # None for a leaf; else (type, keys of a dict or None, specs of the parts)


def flatten(tree: Any) -> tuple[list[Any], Spec]:
    """The leaves of a structure in order, and its spec: the structure without them, hashable."""
    if not isinstance(tree, _STRUCTURES) or isinstance(tree, _NOT_MADE_OF_PAIRS):
        return [tree], None
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a structure, in order."""
    return flatten(tree)[0]


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The structure with every leaf replaced by `function(leaf)`."""
    if not isinstance(tree, _STRUCTURES) or isinstance(tree, _NOT_MADE_OF_PAIRS):
        return function(tree)
    keys, parts = _parts(tree)
    made = [
        function(part)  # here, since a call for each takes twice as long
        if not isinstance(part, _STRUCTURES) or isinstance(part, _NOT_MADE_OF_PAIRS)
        else mapped(function, part)
        for part in parts
    ]
    return _made(type(tree), keys, made)


def unflatten(leaves: Any, spec: Spec) -> Any:
    """The structure of `spec` with these leaves: the inverse of `flatten`."""
    if spec is None:
        (leaf,) = leaves
        return leaf
    return _unflatten(iter(leaves), spec)


def _parts(tree: Any) -> tuple[tuple[Any, ...] | None, Iterable[Any]]:
    """The keys of a dict, or None; and the parts of a structure that is not a leaf."""
    return (tuple(tree), tree.values()) if isinstance(tree, dict) else (None, tree)


def _flatten(tree: Any, leaves: list[Any]) -> Spec:
    """The spec of a structure that is not a leaf."""
    keys, parts = _parts(tree)
    specs: list[Spec] = []
    for part in parts:
        if not isinstance(part, _STRUCTURES) or isinstance(part, _NOT_MADE_OF_PAIRS):
            leaves.append(part)  # here, since a call for each takes twice as long
            specs.append(None)
        else:
            specs.append(_flatten(part, leaves))
    return type(tree), keys, tuple(specs)


def _unflatten(leaves: Iterator[Any], spec: Spec) -> Any:
    if spec is None:
        return next(leaves)
    kind, keys, parts = spec
    return _made(kind, keys, [_unflatten(leaves, part) for part in parts])


def _made(kind: Any, keys: tuple[Any, ...] | None, values: list[Any]) -> Any:
    if keys is not None:
        return kind(zip(keys, values, strict=True))
    if kind is tuple or kind is list or not hasattr(kind, "_fields"):
        return kind(values)
    return kind(*values)
