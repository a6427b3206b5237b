"""Objects that lie beside a step, or on the way to what it reads: ordinary ones and odd ones."""

from __future__ import annotations

import argparse
import logging
import random
import types
import unittest.mock
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.small import H


class Frame:
    """As a table of pandas: columns by name and by attribute, and special methods of its own."""

    def __init__(self, **columns: Any):
        self.__dict__["_columns"] = {k: np.asarray(v) for k, v in columns.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_columns"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __eq__(self, other: object) -> Any:
        return Frame(**{k: v == other for k, v in self._columns.items()})

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a table is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Scaler:
    """As scikit-learn's, fitted: arrays and numbers as attributes."""

    def __init__(self) -> None:
        self.mean_, self.scale_, self.n_samples_seen_ = np.zeros(H), np.ones(H), np.int64(7)


def beside(what: str) -> Any:
    logger = logging.getLogger("of_a_test")
    if what == "ArgumentParser":
        parser = argparse.ArgumentParser()
        parser.add_argument("--rate", type=float, default=0.1)
        return types.SimpleNamespace(parser=parser, args=parser.parse_args([]))
    logger.isEnabledFor(10)  # it keeps the answer
    kinds = {
        "logger": logger,
        "table": Frame(a=np.ones(3), b=np.arange(3.0)),
        "scaler": Scaler(),
        "counter": types.SimpleNamespace(calls=0, losses=[]),
    }
    return kinds[what]


def raising(*names: str) -> Any:
    """An object of which nothing that these methods are asked for can be had."""

    def refuse(self: Any, *_: Any) -> Any:
        raise ValueError("not of me")

    asked = ("__class__", "__dict__")
    body = {name: property(refuse) if name in asked else refuse for name in names}
    return type("Raising", (), {**body, "k": 0.5})()


def nested() -> Any:
    outermost: dict[str, Any] = {}
    inner = outermost
    for _ in range(500):
        inner["in"] = inner = {}
    return outermost


def in_itself() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


class Evasive(nn.Module):
    """Its missing attributes are a KeyError."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


# Makers of objects at which looking fails, does not end, or finds nothing.
HARD: dict[str, Any] = {
    "__iter__": lambda: raising("__iter__"),
    "__dict__": lambda: raising("__dict__"),
    "__class__": lambda: raising("__class__"),
    "__getattr__": lambda: raising("__getattr__"),
    "__eq__": lambda: raising("__eq__", "__hash__"),
    "__bool__": lambda: raising("__bool__", "__len__", "__repr__"),
    "KeyError": Evasive,
    "SystemRandom": random.SystemRandom,
    "uninitialized": lambda: types.SimpleNamespace(W=nn.UninitializedParameter(), k=0.5),
    "nested": nested,
    "in itself": in_itself,
    "Mock": unittest.mock.Mock,
    "Mock of a module": lambda: unittest.mock.Mock(spec=nn.Linear),
    "long": lambda: list(range(10**5)),
    "TorchScript": lambda: torch.jit.script(nn.Tanh()),
    "compiled": lambda: torch.compile(nn.Tanh(), backend="eager"),
}
