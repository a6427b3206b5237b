"""The reads of a step: a walk along the names that its code mentions, as lines of Python."""

from __future__ import annotations

import collections
import enum
import functools
import io
import logging
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ostinato.compiler import torch_compat
from ostinato.compiler.capture.code import globals_of, is_fixed, is_fixed_name
from ostinato.compiler.capture.snapshots import MOST_BYTES, Snapshots, is_generator
from ostinato.compiler.errors import Unsupported

_ATOMS = (int, bool, float, complex, str, bytes, type(None), type(...), slice, range)
_CONSTANTS = (
    *_ATOMS, np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
# Attributes and methods that Python keeps in C: identical for as long as their class is.
_DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.MemberDescriptorType, types.GetSetDescriptorType,
    type(vars(collections.namedtuple("_One", "field"))["field"]),
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Methods by which code reaches all parts of a module without naming them.
_ALL_PARTS = {
    "parameters", "named_parameters", "buffers", "named_buffers", "children", "named_children",
    "modules", "named_modules", "apply", "state_dict", "_parameters", "_buffers", "_modules",
}  # fmt: skip
MOST_ITEMS, MOST_READS = 3000, 8000


class Lift(NamedTuple):
    """A Python float that is taken as a tensor, and where it lies."""

    container: Any  # a cell or a dict
    key: Any
    value: float
    tensor: Tensor

    def put(self, value: Any) -> None:
        if isinstance(self.container, types.CellType):
            self.container.cell_contents = value
        else:
            dict.__setitem__(self.container, self.key, value)


def as_tensor(number: float) -> Tensor:
    """In float64, since Python computes in it; with a float32 tensor it gives float32."""
    return torch.scalar_tensor(number, dtype=torch.float64, device="cpu")


class Walk:
    """One walk from a step along the names that its code mentions.

    `lines` read every value into a variable of its own and return the number of the path where a
    value differs.
    """

    def __init__(
        self,
        names: set[str],
        codes: dict[int, Any],
        snapshots: Snapshots,
        lifted: Mapping[str, Tensor] | None = None,
        apart: frozenset[str] = frozenset(),
    ):
        """A walk.

        Args:
            lifted: path of a Python float → the tensor that stands for it, see `lift`.
            apart: paths of dicts whose items are compared one by one, and of such items.
        """
        self.names, self.codes, self.snapshots = set(names), codes, snapshots
        self.lifted, self.apart, self.lifts = lifted or {}, apart, dict[str, Lift]()
        self.everything = not {"__dict__", "vars"}.isdisjoint(self.names)
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.paths = ["an object that cannot be read"]
        self.tensors: list[Tensor] = []
        self.tensor_variables: list[str] = []
        self.opaque: str | None = None
        self.seen: dict[int, str] = {}
        self.alive: list[Any] = []  # so that ids stay theirs
        self.at = "step"
        self.hooks_of_all_modules = False
        self.objects: list[str] = []  # variables of objects, which are not one and the same
        self.trees: set[int] = set()  # modules that are saved with all their parts
        if "random" in self.names:
            snapshots.add_global_generators()

    # ------------------------------------------------------------------------ lines

    def constant(self, value: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def check(self, condition: str, path: str) -> None:
        if len(self.lines) > MOST_READS:
            self.opaque = "the step reaches more than can be guarded"
            return
        if self.paths[-1] is not path:
            self.paths.append(path)
        self.lines.append(f"if not ({condition}): return {len(self.paths) - 1}")

    def variable(self, expression: str) -> str:
        name = f"v{len(self.lines) + 1}"
        self.lines.append(f"{name} = {expression}")
        return name

    def read(self, expression: str, value: Any, path: str, place: Any = None) -> None:
        """Read a value; place: the container and the key under which another may be put there."""
        if len(self.lines) <= MOST_READS:
            v = self.variable(expression)
            new = path in self.lifted and path not in self.lifts  # variables of one name: the first
            if new and place is not None and type(value) is float:
                self.lift(value, v, path, place)
            else:
                self.visit(value, v, path)

    def lift(self, value: float, v: str, path: str, place: tuple[Any, Any]) -> None:
        """Take a number that changes as a tensor: the recording stands for every value of it."""
        self.check(f"type({v}) is float", path)
        tensor = self.lifted[path]
        if float(tensor) != value:  # a change that is none would look like one of the step's
            tensor.fill_(value)
        self.lifts[path] = Lift(*place, value, tensor)
        self.tensors.append(tensor)
        self.tensor_variables.append(f"{self.constant(as_tensor)}({v})")

    def is_same(self, v: str, value: Any, path: str) -> None:
        """By identity, without keeping the value alive."""
        self.check(f"{v} is {self.constant(ref(value))}()", path)

    # ------------------------------------------------------------------------ values

    def visit(self, value: Any, v: str, path: str) -> None:
        self.at = path
        if isinstance(value, types.FunctionType):
            source = torch_compat.source_of(value)
            if source is not value:
                self.read(f"{v}._torchdynamo_orig_callable", source, path)
                return
        if isinstance(value, Tensor):
            self.tensor(value, v, path)
        elif type(value) in _CONSTANTS or isinstance(value, np.generic):
            self.number(value, v, path)
        elif id(value) in self.seen:
            self.check(f"{v} is {self.seen[id(value)]}", path)
        elif is_fixed(value) or isinstance(value, logging.Logger):
            self.is_same(v, value, path)
        elif isinstance(value, _DESCRIPTORS):
            of = self.constant(ref(getattr(value, "__objclass__", type(value))))
            same = f"getattr({v}, '__name__', '') == {getattr(value, '__name__', '')!r}"
            self.check(f"{same} and getattr({v}, '__objclass__', type({v})) is {of}()", path)
        elif is_generator(value):
            self.generator(value, v, path)
        else:
            self.seen[id(value)] = v
            self.alive.append(value)
            self.snapshots.add(value)
            for kind, method in _KINDS:
                if isinstance(value, kind):
                    method(self, value, v, path)
                    break
            else:
                self.object(value, v, path)

    def number(self, value: Any, v: str, path: str) -> None:
        """A constant, compared with its type: True is not 1, −0 is not 0, NaN is itself."""
        kind = self.constant(type(value))
        if isinstance(value, (float, complex, np.generic)) and not (value == value and value != 0):
            self.check(f"type({v}) is {kind} and repr({v}) == {repr(value)!r}", path)
        else:
            known = self.constant(value)
            self.check(f"{v} is {known} or type({v}) is {kind} and {v} == {known}", path)

    def tensor(self, value: Tensor, v: str, path: str) -> None:
        if is_lazy(value):
            raise Unsupported("a parameter has no shape yet")
        self.tensors.append(value)
        self.tensor_variables.append(v)
        own = object.__getattribute__(value, "__dict__")
        absent = self.constant(self.names - own.keys())
        self.check(f"{v}.__dict__.keys().isdisjoint({absent})", path)
        if id(value) not in self.seen:
            self.seen[id(value)] = v
            self.snapshots.add(own)
            for name in sorted(self.names & own.keys()):
                self.read(f"{v}.__dict__[{name!r}]", own[name], f"{path}.{name}")

    def function(self, f: types.FunctionType, v: str, path: str) -> None:
        code = self.constant(f.__code__)
        self.check(f"{v}.__code__ is {code} or {v}.__code__ == {code}", path)
        if f.__dict__:
            self.names_in(f.__dict__, f"{v}.__dict__", path)
        if id(f.__code__) not in self.codes:  # it did not run
            return
        for name in ("__defaults__", "__kwdefaults__"):
            self.read(f"{v}.{name}", getattr(f, name), f"{path}.{name}")
        for i, cell in enumerate(f.__closure__ or ()):
            name = f.__code__.co_freevars[i]
            self.snapshots.add(cell)
            try:
                inside = cell.cell_contents
            except ValueError:  # a variable that is not bound yet
                self.opaque = f"the variable {name} of {path} has no value yet"
            else:
                self.read(f"{v}.__closure__[{i}].cell_contents", inside, name, (cell, None))
        if not is_fixed_name(f.__globals__.get("__name__")):
            self.scope(f.__globals__, globals_of(f.__code__), f"{v}.__globals__")

    def scope(self, scope: dict[str, Any], names: frozenset[str], expression: str) -> None:
        """The globals that code mentions, there or not, and the modules that it imports."""
        self.snapshots.add_names(scope, names)
        v = self.variable(expression) if names else ""
        for name in sorted(names & scope.keys()):
            self.read(f"{v}[{name!r}]", scope[name], name, (scope, name))
        absent = names - scope.keys()
        if absent:  # builtins, most often
            self.check(f"{v}.keys().isdisjoint({self.constant(absent)})", min(absent))
        for name in sorted(absent & sys.modules.keys()):
            if not is_fixed_name(name):
                modules = self.constant(sys.modules)
                self.read(f"{modules}[{name!r}]", sys.modules[name], name)

    def builtin(self, f: types.BuiltinFunctionType, v: str, path: str) -> None:
        """A function of a module is compared by identity, a method by its name and its object."""
        if f is getattr or f is hasattr:
            self.opaque = f"{path} may read what the code does not name"
        elif isinstance(f.__self__, (types.ModuleType, type, types.NoneType)):
            self.check(f"{v} is {self.constant(f)}", path)
        else:
            self.check(f"{v}.__name__ == {f.__name__!r}", path)
            self.read(f"{v}.__self__", f.__self__, f"{path}.__self__")

    def parts(self, value: Any, v: str, path: str) -> None:
        """An object around functions: a method, partial, staticmethod, property, lru_cache."""
        self.check(f"type({v}) is {self.constant(type(value))}", path)
        if hasattr(value, "cache_info"):
            self.opaque = f"what {path} remembers (functools.lru_cache) is not seen"
        for name in ("func", "args", "keywords", "__func__", "__self__", "fget", "__wrapped__"):
            if hasattr(value, name):
                self.read(f"{v}.{name}", getattr(value, name), path)
        if not is_fixed(type(value)):
            self.object(value, v, path)

    def module(self, m: types.ModuleType, v: str, path: str) -> None:
        self.is_same(v, m, path)
        own = self.variable(f"{v}.__dict__")
        self.names_in(m.__dict__, own, path)
        self.snapshots.add_names(m.__dict__, self.names & m.__dict__.keys())

    def class_(self, cls: type, v: str, path: str) -> None:
        """A class, its attributes and those of its bases, and its methods that ran."""
        self.is_same(v, cls, path)
        if not is_fixed(type(cls)):
            self.read(f"type({v})", type(cls), path)
        bases = [b for b in cls.__mro__ if not (is_fixed(b) or _is_written_in_c(b))]
        named = {n for b in bases for n, value in vars(b).items() if self.ran(value)}
        named |= self.names | ({"forward"} if issubclass(cls, nn.Module) else set())
        for base in bases:
            self.snapshots.add(base)
            own = self.variable(f"{v}.__mro__[{cls.__mro__.index(base)}].__dict__")
            for name in sorted(named & vars(base).keys()):
                self.read(f"{own}[{name!r}]", vars(base)[name], f"{path}.{name}")
            absent = named - vars(base).keys()  # it may be set here later, and hide that of a base
            self.check(f"{own}.keys().isdisjoint({self.constant(absent)})", path)
            if "super" not in self.names:
                named = absent

    def ran(self, attribute: Any) -> bool:
        """Whether a function, or what stands around one, is among the code that ran."""
        functions = [attribute, *(getattr(attribute, n, None) for n in ("__func__", "fget"))]
        return any(
            isinstance(f, types.FunctionType) and id(f.__code__) in self.codes for f in functions
        )

    def items(self, value: Any, v: str, path: str) -> None:
        """A list, tuple or dict, or of a class that derives from one."""
        kind = next(k for k in (list, tuple, dict) if isinstance(value, k))
        if type(value) is not kind:
            self.object(value, v, path)
        if kind.__len__(value) > MOST_ITEMS:
            self.opaque = f"{path} has more than {MOST_ITEMS} items"
            return
        apart = kind is dict and any(p == path or p.startswith(f"{path}[") for p in self.apart)
        if type(value) is kind and _is_plain(value) and not apart:  # compared as a whole
            inside = f"{v}.values()" if kind is dict else v
            types_of = self.constant([type(x) for x in _values(value)])
            known = self.constant(kind(value))
            self.check(
                f"type({v}) is {kind.__name__} and {v} == {known} "
                f"and [*map(type, {inside})] == {types_of}",
                path,
            )
            return
        if type(value) is kind:
            self.check(f"type({v}) is {kind.__name__}", path)
        if kind is dict:
            self.dict_items(value, v, path)
            return
        self.check(f"{kind.__name__}.__len__({v}) == {kind.__len__(value)}", path)
        for i, item in enumerate(kind.__iter__(value)):
            self.read(f"{kind.__name__}.__getitem__({v}, {i})", item, f"{path}[{i}]")

    def dict_items(self, value: dict[Any, Any], v: str, path: str) -> None:
        keys = list(dict.keys(value))
        if all(type(key) in _ATOMS for key in keys):
            self.check(f"[*dict.keys({v})] == {self.constant(keys)}", path)
            for key in keys:
                self.read(
                    f"dict.__getitem__({v}, {self.constant(key)})", dict.__getitem__(value, key),
                    f"{path}[{key!r}]", (value, key),
                )  # fmt: skip
            return
        self.check(f"dict.__len__({v}) == {len(keys)}", path)
        pairs = self.variable(f"[*dict.items({v})]")
        for i, (key, inside) in enumerate(dict.items(value)):
            self.read(f"{pairs}[{i}][0]", key, f"{path}'s key {i}")
            self.read(f"{pairs}[{i}][1]", inside, f"{path}'s item {i}")

    def set_(self, value: Any, v: str, path: str) -> None:
        if not _is_plain(value):
            self.opaque = f"{path} is a set of objects"
        kind, known = self.constant(type(value)), self.constant(frozenset(value))
        if type(value) in (set, frozenset):
            self.check(f"type({v}) is {kind} and {v} == {known}", path)
        else:
            self.object(value, v, path)

    def array(self, value: np.ndarray[Any, Any], v: str, path: str) -> None:
        """A NumPy array, compared by its bytes where these are few."""
        if type(value) is not np.ndarray or value.dtype.hasobject or value.nbytes > MOST_BYTES:
            self.opaque = f"the contents of {path} (an array) are not seen"
            return
        known = self.constant((value.dtype, value.shape, value.tobytes()))
        self.check(f"({v}.dtype, {v}.shape, {v}.tobytes()) == {known}", path)

    def generator(self, value: Any, v: str, path: str) -> None:
        """A source of random numbers: a step that draws none does not depend on its state."""
        self.snapshots.add_generator(value)
        self.check(f"type({v}) is {self.constant(type(value))}", path)

    def iterator(self, value: Any, v: str, path: str) -> None:
        if isinstance(value, io.IOBase):
            self.opaque = f"{path} is a file"
            return
        raise Unsupported(
            f"it reaches a {type(value).__name__}, of which every run takes an element"
        )

    def script(self, value: Any, v: str, path: str) -> None:
        raise Unsupported("it reaches TorchScript, whose calls are not seen")

    def nn_module(self, m: nn.Module, v: str, path: str) -> None:
        """Its parts by name; all of them where a class of PyTorch may read them unnamed."""
        if not self.hooks_of_all_modules:
            self.hooks_of_all_modules = True
            every = vars(nn.modules.module)
            self.hooks(every, self.constant(every), "_global", "torch.nn.modules.module")
        d = m.__dict__
        own = self.variable(f"{v}.__dict__")
        self.snapshots.add(d)
        torchs = [b for b in type(m).__mro__ if is_fixed(b) and b not in nn.Module.__mro__]
        whole = bool(torchs) or not _ALL_PARTS.isdisjoint(self.names)
        self.hooks(d, own, "", path)
        if id(m) not in self.trees:
            self.save_tree(m)
        for part in ("_parameters", "_buffers", "_modules"):
            inside = ""
            absent = self.constant(self.names - d[part].keys())
            self.check(f"{own}[{part!r}].keys().isdisjoint({absent})", path)
            for name, value in d[part].items():
                if whole or name in self.names:
                    inside = inside or self.variable(f"{own}[{part!r}]")
                    self.read(f"{inside}[{name!r}]", value, f"{path}.{name}")
            if whole and d[part]:
                self.check(f"[*{inside}] == {self.constant(list(d[part]))}", path)
        if "_compiled_call_impl" in d:  # by module.compile(); forward is as it was
            torch_compat.expect_compiled()
        self.read(f"{own}['training']", d["training"], f"{path}.training")
        if torchs:  # what PyTorch's forward may read
            kinds = (*_CONSTANTS, Tensor, tuple, types.FunctionType, types.BuiltinFunctionType)
            for name, value in sorted(d.items()):
                if isinstance(value, kinds) and name not in self.names and name != "training":
                    self.read(f"{own}[{name!r}]", value, f"{path}.{name}")
        self.attributes(m, v, own, path, "forward")

    def save_tree(self, m: nn.Module) -> None:
        """Save a module with all that it holds, before code below it runs.

        torch.func.functional_call, and contexts like it, replace parameters for a while.
        """
        for part in m.modules():
            self.trees.add(id(part))
            for name in ("_parameters", "_buffers", "_modules"):
                self.snapshots.add(part.__dict__[name])

    def hooks(self, d: dict[str, Any], own: str, prefix: str, path: str) -> None:
        """Dictionaries of hooks, whose keys are numbers that no two hooks share."""
        names = [prefix + name for name in _HOOKS]
        for name in names:
            self.snapshots.add(d[name])
        empty = [f"{own}[{name!r}]" for name in names if not d[name]]
        if empty:
            self.check(f"not ({' or '.join(empty)})", f"{path}'s hooks")
        for name in names:
            if d[name]:
                v = self.variable(f"[*{own}[{name!r}].values()]")
                self.check(f"len({v}) == {len(d[name])}", f"{path}.{name}")
                for i, hook in enumerate(d[name].values()):
                    self.read(f"{v}[{i}]", hook, f"{path}.{name}[{i}]")

    def object(self, value: Any, v: str, path: str) -> None:
        """Any other object: its class, and the attributes that are named."""
        self.objects.append(v)
        d = _dict_of(value)
        if d is not None:
            self.snapshots.add(d)
            own = self.variable(f"{v}.__dict__")
            self.attributes(value, v, own, path)
            if isinstance(value, enum.Enum):  # which its property `value` reads
                self.read(f"{own}['_value_']", value._value_, f"{path}.value")
        else:
            self.attributes(value, v, "", path)
        seen = (list, tuple, dict, set, frozenset, object, functools.partial)
        hidden = any(_is_written_in_c(b) and b not in seen for b in type(value).__mro__)
        if hidden and not isinstance(value, (enum.Enum, types.SimpleNamespace)):
            self.opaque = f"the contents of {path} (a {type(value).__name__}) are not seen"

    def attributes(self, value: Any, v: str, own: str, path: str, *more: str) -> None:
        """An object's class and named attributes; `own` is the variable of its `__dict__`."""
        cls = type(value)
        self.read(f"type({v})", cls, path)
        d = _dict_of(value) or {}
        torchs = cls.__module__.partition(".")[0] == "torch"
        whole = torchs and not isinstance(value, nn.Module)  # PyTorch reads it unnamed
        self.names_in(d, own, path, whole)
        names = sorted({*self.names, *more} - d.keys())
        slots = _slots_of(cls)
        for name in names:
            if name in slots:
                try:
                    inside = slots[name].__get__(value)
                except AttributeError:  # empty
                    self.opaque = f"{path}.{name} has no value yet"
                else:
                    self.read(f"{v}.{name}", inside, f"{path}.{name}")
        if own:  # the object may get one of them later
            self.check(f"{own}.keys().isdisjoint({self.constant(frozenset(names))})", path)

    def names_in(self, d: dict[str, Any], own: str, path: str, whole: bool = False) -> None:
        for name in sorted(d.keys() if whole or self.everything else self.names & d.keys()):
            self.read(f"{own}[{name!r}]", d[name], f"{path}.{name}", (d, name))


_KINDS: list[tuple[Any, Callable[..., None]]] = [
    (types.FunctionType, Walk.function),
    (types.BuiltinFunctionType, Walk.builtin),
    (types.ModuleType, Walk.module),
    (type, Walk.class_),
    (
        (
            types.MethodType,
            functools.partial,
            staticmethod,
            classmethod,
            property,
            functools._lru_cache_wrapper,
        ),
        Walk.parts,
    ),
    ((torch.jit.ScriptModule, torch.jit.ScriptFunction), Walk.script),
    (nn.Module, Walk.nn_module),
    ((list, tuple, dict), Walk.items),
    ((set, frozenset), Walk.set_),
    (np.ndarray, Walk.array),
    (collections.abc.Iterator, Walk.iterator),
]


def _is_plain(container: Any) -> bool:
    """Whether a list, tuple, dict or set holds constants alone, which == compares as they are."""
    values = [*container, *_values(container)] if isinstance(container, dict) else container
    return all(
        type(x) in (int, bool, str, bytes, type(None)) or (type(x) is float and x == x and x != 0)
        for x in values
    )


def _values(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _is_written_in_c(cls: type) -> bool:
    return bool(cls.__flags__ & 1 << 8)  # Py_TPFLAGS_IMMUTABLETYPE: nobody sets its attributes


def _dict_of(value: Any) -> dict[str, Any] | None:
    """An object's own attributes, past what its class makes of `__dict__`."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def _slots_of(cls: type) -> dict[str, types.MemberDescriptorType]:
    return {
        name: slot
        for base in reversed(cls.__mro__)
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType)
    }
