"""The reads of a step: a walk along the names that its code mentions, as lines of Python."""

from __future__ import annotations

import collections
import enum
import functools
import io
import logging
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ostinato.compiler import torch_compat
from ostinato.compiler.capture.guards.code import Unread, globals_of, is_fixed, is_fixed_name
from ostinato.compiler.capture.guards.snapshots import (
    MOST_BYTES,
    PARTS,
    attributes_of,
    is_generator,
)
from ostinato.compiler.errors import Unsupported

if TYPE_CHECKING:
    from ostinato.compiler.capture.guards.observation import Observation

_CONSTANTS = (
    int, bool, float, complex, str, bytes, type(None), type(...), slice, range,
    np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
# Functions, attributes and methods that Python keeps in C.
_OF_C = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(collections.namedtuple("_One", "field"))["field"]),
)
_CONTAINERS = (list, tuple, dict, set, frozenset)
# Classes written in C whose objects a walk can read completely.
_OPEN = (*_CONTAINERS, collections.OrderedDict, object, functools.partial, types.SimpleNamespace)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Methods by which code reaches all parts of a module without naming them.
_ALL_PARTS = {
    "parameters",
    "named_parameters",
    "buffers",
    "named_buffers",
    "children",
    "named_children",
    "modules",
    "named_modules",
    "apply",
    "state_dict",
    *PARTS,
}
# PyTorch's own modules may read these attributes of themselves, besides their parts.
_OF_A_MODULE = (*_CONSTANTS, Tensor, tuple, types.FunctionType, types.BuiltinFunctionType)
_UNNAMED = ("forward", "_value_")  # read by torch.nn.Module, and by the property `value` of an Enum
MOST_ITEMS, MOST_READS = 3000, 8000
Put = Callable[[Any], None]  # puts another value in place of one


class Lift(NamedTuple):
    """A Python float that is recorded as a tensor."""

    put: Put
    value: float
    tensor: Tensor


def as_tensor(number: float) -> Tensor:
    """In float64, since Python computes in it; with a float32 tensor it gives float32."""
    return torch.scalar_tensor(number, dtype=torch.float64, device="cpu")


class Walk:
    """One walk from a step along the names that its observed code mentions.

    `lines` read every value into a variable of its own, and return the number of the first path
    whose value differs.
    """

    def __init__(self, of: Observation, by_value: Collection[int] = ()):
        self.names, self.codes, self.snapshots = of.names.union(_UNNAMED), of.codes, of.snapshots
        self.by_value = by_value
        self.batch, self.same = of.batch or ((), 0), of.same
        self.whole: list[tuple[str, int, Put]] = []  # numbers that may be the size of the batch
        self.lifted, self.by_item, self.lifts = of.lifted, of.by_item, dict[str, Lift]()
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.paths = ["an object that cannot be read"]
        self.tensors: list[Tensor] = []
        self.tensor_variables: list[str] = []
        self.opaque = of.opaque
        self.backward_functions: list[tuple[types.FunctionType, str]] = []  # of custom Functions
        self.seen: dict[int, str] = {}
        self.alive: list[Any] = []  # kept alive, so that their ids stay unique
        self.objects: list[str] = []  # variables of objects that are distinct
        if "random" in of.names:
            of.snapshots.add_global_generators()

    # ------------------------------------------------------------------------ lines

    def constant(self, value: Any) -> str:
        """A name for a value in the lines."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def check(self, condition: str, path: str) -> None:
        """Add a condition that must hold; if it does not, the path has changed."""
        if self.paths[-1] is not path:
            self.paths.append(path)
        self.lines.append(f"if not ({condition}): return {len(self.paths) - 1}")

    def variable(self, expression: str) -> str:
        """A name for the value of an expression, which a line computes."""
        name = f"v{len(self.lines) + 1}"
        self.lines.append(f"{name} = {expression}")
        return name

    def read(self, expression: str, value: Any, path: str, put: Put | None = None) -> None:
        """Read a value that can be replaced by another one."""
        if len(self.lines) > MOST_READS:
            self.opaque = "the step reaches more than can be guarded"
            return
        v = self.variable(expression)
        if put is not None and type(value) is int:
            self.whole.append((path, value, put))
            if path in self.batch[0] and value == self.batch[1]:
                self.check(f"type({v}) is int and {v} == n", path)
                return
        new = path in self.lifted and path not in self.lifts  # variables of one name: the first
        if new and put is not None and type(value) is float:
            self.lift(value, v, path, put)
        else:
            self.visit(value, v, path)

    def lift(self, value: float, v: str, path: str, put: Put) -> None:
        """Record a number that changes as a tensor: the recording is then valid for every value."""
        self.check(f"type({v}) is float", path)
        tensor = self.lifted[path]
        if float(tensor) != value:  # writing an equal value would look like a change by the step
            tensor.fill_(value)
        self.lifts[path] = Lift(put, value, tensor)
        self.tensors.append(tensor)
        self.tensor_variables.append(f"{self.constant(as_tensor)}({v})")

    def fields(self, value: Any, v: str, path: str, *names: str) -> None:
        """Read these attributes, if the value has them."""
        for name in names:
            if hasattr(value, name):
                self.read(f"{v}.{name}", getattr(value, name), f"{path}.{name}")

    def namespace(self, d: Mapping[str, Any], own: str, names: Collection[str], path: str) -> None:
        """Read the names that a namespace has; the others must stay absent."""
        v = self.variable(own)
        for name in sorted(names & d.keys()):
            put = functools.partial(dict.__setitem__, d, name) if type(d) is dict else None
            self.read(f"{v}[{name!r}]", d[name], f"{path}{name}", put)
        absent = names - d.keys()
        if absent:
            disjoint = f"{v}.keys().isdisjoint({self.constant(absent)})"
            self.check(f"not {v} or {disjoint}", f"{path}{min(absent)}")

    def is_same(self, v: str, value: Any, path: str) -> None:
        """By identity, without keeping the value alive."""
        self.check(f"{v} is {self.constant(ref(value))}()", path)

    # ------------------------------------------------------------------------ values

    def visit(self, value: Any, v: str, path: str) -> None:
        """Read a value; if reading raises, the step is searched at every call."""
        try:
            self.look(value, v, path)
        except (Unsupported, MemoryError):
            raise
        except Exception as error:  # from an object that cannot be inspected
            self.opaque = f"{path} cannot be read ({type(error).__name__})"

    def look(self, value: Any, v: str, path: str) -> None:
        """Read a value by its kind, and the values that the run can have reached through it."""
        if isinstance(value, types.FunctionType):
            source = torch_compat.source_of(value)
            if source is not value:
                self.read(f"{v}._torchdynamo_orig_callable", source, path)
                return
        if isinstance(value, Tensor):
            self.tensor(value, v, path)
        elif type(value) in _CONSTANTS or isinstance(value, np.generic):
            self.number(value, v, path)
        elif isinstance(value, Unread):
            return
        elif id(value) in self.seen:
            self.check(f"{v} is {self.seen[id(value)]}", path)
        elif is_fixed(value) or isinstance(value, logging.Logger):
            self.is_same(v, value, path)
        else:
            self.seen[id(value)] = v
            self.alive.append(value)
            self.snapshots.add(value)
            if is_generator(value):  # a step that draws no number does not depend on its state
                if isinstance(value, torch.Generator):  # a recording draws from this one
                    self.is_same(v, value, path)
                self.check(f"type({v}) is {self.constant(type(value))}", path)
                return
            method = next(method for kind, method in _KINDS if isinstance(value, kind))
            method(self, value, v, path)

    def number(self, value: Any, v: str, path: str) -> None:
        """A constant, compared with its type: True is not 1, −0 is not 0, NaN is itself."""
        kind = self.constant(type(value))
        if isinstance(value, (float, complex, np.generic)) and not (value == value and value != 0):
            self.check(f"type({v}) is {kind} and repr({v}) == {repr(value)!r}", path)
        else:
            known = self.constant(value)
            self.check(f"{v} is {known} or type({v}) is {kind} and {v} == {known}", path)

    def tensor(self, value: Tensor, v: str, path: str) -> None:
        """Record a tensor, and read its attributes.

        Raises:
            Unsupported: it is a parameter without a shape.
        """
        if is_lazy(value):
            raise Unsupported("a parameter has no shape yet")
        self.tensors.append(value)
        self.tensor_variables.append(v)
        if id(value) in self.by_value:  # as text −0 is not 0, and NaN is itself
            self.check(f"repr({v}.tolist()) == {repr(value.tolist())!r}", path)
        if id(value) not in self.seen:
            self.seen[id(value)] = v
            self.snapshots.add(value)
            self.namespace(attributes_of(value) or {}, f"{v}.__dict__", self.names, f"{path}.")

    def function(self, f: types.FunctionType, v: str, path: str) -> None:
        """Read a function: its code and, if it ran, its defaults, closure cells and globals."""
        code = self.constant(f.__code__)
        self.check(f"{v}.__code__ is {code} or {v}.__code__ == {code}", path)
        self.namespace(f.__dict__, f"{v}.__dict__", self.names, f"{path}.")
        if not self.ran(f):
            return
        self.fields(f, v, path, "__defaults__", "__kwdefaults__")
        for i, cell in enumerate(f.__closure__ or ()):
            inside, name = cell.cell_contents, f.__code__.co_freevars[i]
            put = functools.partial(setattr, cell, "cell_contents")
            self.read(f"{v}.__closure__[{i}].cell_contents", inside, name, put)
        names = globals_of(f.__code__)
        if not names or is_fixed_name(f.__globals__.get("__name__")):
            return
        self.snapshots.add_names(f.__globals__, names)
        self.namespace(f.__globals__, f"{v}.__globals__", names, "")
        for name in sorted((names - f.__globals__.keys()) & sys.modules.keys()):  # importable
            if not is_fixed_name(name):
                self.read(f"{self.constant(sys.modules)}[{name!r}]", sys.modules[name], name)

    def of_c(self, value: Any, v: str, path: str) -> None:
        """A function of a module by identity; a method or descriptor by its name and object.

        Since PyTorch 2.15, `apply` of a user's autograd.Function is such a method of the class.
        """
        of = getattr(value, "__self__", value)
        of_fixed = isinstance(of, type) and is_fixed(of)
        if of_fixed or isinstance(of, (types.ModuleType, types.NoneType)):
            self.check(f"{v} is {self.constant(value)}", path)
            return
        kind, name = self.constant(type(value)), getattr(value, "__name__", "")
        self.check(f"type({v}) is {kind} and getattr({v}, '__name__', '') == {name!r}", path)
        self.fields(value, v, path, "__self__", "__objclass__")

    def around(self, value: Any, v: str, path: str) -> None:
        """An object around functions: a method, partial, staticmethod, property, lru_cache."""
        self.check(f"type({v}) is {self.constant(type(value))}", path)
        if hasattr(value, "cache_info"):
            self.opaque = f"the results that {path} remembers (functools.lru_cache) are not seen"
        names = ("func", "args", "keywords", "__func__", "__self__", "fget", "__wrapped__")
        self.fields(value, v, path, *names)
        if not is_fixed(type(value)):
            self.object(value, v, path)

    def module(self, m: types.ModuleType, v: str, path: str) -> None:
        """Read the names of a module that the run can have mentioned."""
        self.is_same(v, m, path)
        self.snapshots.add_names(m.__dict__, self.names)
        self.namespace(m.__dict__, f"{v}.__dict__", self.names, f"{path}.")

    def class_(self, cls: type, v: str, path: str) -> None:
        """A class, its attributes and those of its bases, and its methods that ran."""
        self.is_same(v, cls, path)
        if issubclass(cls, torch.autograd.Function):
            name = "backward" if cls.vjp is torch.autograd.Function.vjp else "vjp"
            f = getattr(cls, name)
            if isinstance(f, types.FunctionType):
                self.backward_functions.append((f, self.variable(f"{v}.{name}")))
        bases = [b for b in cls.__mro__ if not (is_fixed(b) or _is_written_in_c(b))]
        ran = {n for b in bases for n, value in vars(b).items() if self.ran(value)}
        names = self.names | ran
        for base in bases:
            self.snapshots.add(base)
            own = f"{v}.__mro__[{cls.__mro__.index(base)}].__dict__"
            self.namespace(vars(base), own, names, f"{path}.")
            if "super" not in self.names:
                names = names - vars(base).keys()

    def ran(self, attribute: Any) -> bool:
        """Whether a function, or the function in a wrapper, is among the code that ran."""
        around = [attribute, *(getattr(attribute, n, None) for n in ("__func__", "fget"))]
        functions = [f for f in around if isinstance(f, types.FunctionType)]
        codes = [f.__code__ for f in functions]
        return any(id(c) in self.codes or (self.same and c in self.same) for c in codes)

    def items(self, value: Any, v: str, path: str) -> None:
        """A list, tuple, dict or set, or of a class that derives from one."""
        kind = next(k for k in _CONTAINERS if isinstance(value, k))
        name, same = kind.__name__, f"type({v}) is {kind.__name__}"
        if type(value) is not kind:
            self.object(value, v, path)
            same = f"isinstance({v}, {name})"
        elif _is_plain(value) and not (kind is dict and self.by_item):  # compared as a whole
            of = list if kind is dict else kind
            inside = f"{v}.values()" if kind is dict else v
            if value:
                types_of = self.constant(of(map(type, _values(value))))
                same += f" and {of.__name__}(map(type, {inside})) == {types_of}"
            self.check(f"{same} and {v} == {self.constant(kind(value))}", path)
            return
        if kind.__len__(value) > MOST_ITEMS or kind in (set, frozenset):
            self.opaque = f"{path} has more than {MOST_ITEMS} items, or is a set of objects"
            return
        self.check(f"{same} and {name}.__len__({v}) == {kind.__len__(value)}", path)
        if kind is dict:
            pairs = self.variable(f"[*dict.items({v})]")
            for i, (key, item) in enumerate(dict.items(value)):
                self.read(f"{pairs}[{i}][0]", key, f"{path}'s key {i}")
                put = functools.partial(dict.__setitem__, value, key)
                self.read(f"{pairs}[{i}][1]", item, f"{path}[{key!r}]", put)
        else:
            for i, item in enumerate(kind.__iter__(value)):
                self.read(f"{name}.__getitem__({v}, {i})", item, f"{path}[{i}]")

    def array(self, value: np.ndarray[Any, Any], v: str, path: str) -> None:
        """A NumPy array, compared by its bytes if these are few."""
        if type(value) is not np.ndarray or value.dtype.hasobject or value.nbytes > MOST_BYTES:
            self.opaque = f"the contents of {path} (an array) are not seen"
            return
        known = self.constant((value.dtype, value.shape, value.tobytes()))
        self.check(f"({v}.dtype, {v}.shape, {v}.tobytes()) == {known}", path)

    def refused(self, value: Any, v: str, path: str) -> None:
        """Refuse the step; called for values that no guard can describe."""
        raise Unsupported(
            f"it reaches a {type(value).__name__}: every run takes an element of an iterator, and "
            "calls of TorchScript are not seen"
        )

    def nn_module(self, m: nn.Module, v: str, path: str) -> None:
        """Its parts by name; all of them if a class of PyTorch may read them without naming
        them."""
        every = vars(nn.modules.module)
        if id(every) not in self.seen:
            self.seen[id(every)] = v
            self.hooks(every, self.constant(every), "_global", "torch.nn.modules.module")
        d, own = m.__dict__, self.variable(f"{v}.__dict__")
        torchs = any(is_fixed(b) and b not in nn.Module.__mro__ for b in type(m).__mro__)
        self.hooks(d, own, "", path)
        for part in PARTS:
            if torchs or not _ALL_PARTS.isdisjoint(self.names):
                self.read(f"{own}[{part!r}]", d[part], path)
            else:
                self.namespace(d[part], f"{own}[{part!r}]", self.names, f"{path}.")
        unnamed = {n for n, value in d.items() if torchs and isinstance(value, _OF_A_MODULE)}
        self.object(m, v, path, unnamed | {"training"})

    def hooks(self, d: dict[str, Any], own: str, prefix: str, path: str) -> None:
        """Dictionaries of hooks, whose keys are numbers that no two hooks share."""
        names = [prefix + name for name in _HOOKS]
        if not any(d[name] for name in names):
            empty = " or ".join(f"{own}[{name!r}]" for name in names)
            self.check(f"not ({empty})", f"{path}'s hooks")
            return
        found = [hook for name in names for hook in (name, *d[name].values())]
        expression = ", ".join(f"{name!r}, *{own}[{name!r}].values()" for name in names)
        self.read(f"[{expression}]", found, f"{path}'s hooks")

    def object(self, value: Any, v: str, path: str, unnamed: Collection[str] = ()) -> None:
        """Any other object: its class, and the attributes that are named."""
        self.objects.append(v)
        cls, own, names = type(value), attributes_of(value), self.names.union(unnamed)
        d = {} if own is None else own
        self.read(f"type({v})", cls, path)
        torchs = cls.__module__.partition(".")[0] == "torch" and not isinstance(value, nn.Module)
        if torchs or "__dict__" in self.names:  # PyTorch reads it without naming it
            names |= d.keys()
        if own is not None:
            self.namespace(d, f"{v}.__dict__", names, f"{path}.")
        bases = [b for b in reversed(cls.__mro__) if "__slots__" in vars(b)]
        slots = {name: slot for b in bases for name, slot in vars(b).items()}
        for name in sorted((names & slots.keys()) - d.keys()):
            if isinstance(slots[name], types.MemberDescriptorType):
                self.read(f"{v}.{name}", slots[name].__get__(value), f"{path}.{name}")
        hidden = any(_is_written_in_c(b) and b not in _OPEN for b in cls.__mro__)
        if hidden and not isinstance(value, enum.Enum):
            self.opaque = f"the contents of {path} (a {cls.__name__}) are not seen"


_AROUND = (
    types.MethodType,
    functools.partial,
    staticmethod,
    classmethod,
    property,
    functools._lru_cache_wrapper,
)
_KINDS: list[tuple[Any, Callable[..., None]]] = [
    (types.FunctionType, Walk.function),
    (_OF_C, Walk.of_c),
    (types.ModuleType, Walk.module),
    (type, Walk.class_),
    (_AROUND, Walk.around),
    ((torch.jit.ScriptModule, torch.jit.ScriptFunction), Walk.refused),
    (nn.Module, Walk.nn_module),
    (_CONTAINERS, Walk.items),
    (np.ndarray, Walk.array),
    (io.IOBase, Walk.object),  # a file, which is an iterator, too
    (collections.abc.Iterator, Walk.refused),
    (object, Walk.object),
]


def _is_plain(container: Any) -> bool:
    """Whether a container holds constants alone, which == compares as they are."""
    if len(container) > MOST_ITEMS:
        return False
    values = [*container, *_values(container)] if isinstance(container, dict) else container
    return all(
        type(x) in (int, bool, str, bytes, type(None)) or (type(x) is float and x == x and x != 0)
        for x in values
    )


def _values(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _is_written_in_c(cls: type) -> bool:
    return bool(cls.__flags__ & 1 << 8)  # Py_TPFLAGS_IMMUTABLETYPE: its attributes never change
