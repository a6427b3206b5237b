"""What a step reaches, and how a change of it is noticed: closures, globals, modules, objects."""

from __future__ import annotations

import array
import collections
import enum
import functools
import random
import sys
import threading
import types
import weakref
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from ostinato.compiler.names import HIDDEN, globals_of, imported, names_of
from ostinato.compiler.torch_compat import expect_compiled, source_of
from ostinato.engine import native

_CONSTANTS = (
    int, float, complex, bool, str, bytes, type(None), type(...), torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format, slice,
)  # fmt: skip
# Of a class written in C, or of how it keeps attributes.
_OF_A_CLASS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.MemberDescriptorType, types.GetSetDescriptorType,
    type(vars(collections.namedtuple("_One", "field"))["field"]),
)  # fmt: skip
# What has contents beside its attributes.
CONTAINERS = (
    list, tuple, dict, set, frozenset, bytearray, array.array, collections.deque, threading.local,
    random.Random,
)  # fmt: skip
# Modules whose contents are taken as fixed, and whose classes are.
_FIXED = {
    "torch", "math", "cmath", "numpy", "builtins", "operator", "functools", "typing", "enum", "abc",
}  # fmt: skip
_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE: written in C, with attributes that nobody sets
_READ_BY_TORCH = (*_CONSTANTS, Tensor, tuple, types.FunctionType, types.BuiltinFunctionType)
LIMIT = 3000  # elements of a container
MOST_OBJECTS, MOST_WATCHES = 10_000, 100_000
# Special methods that no operator in a step leads to.
_INERT = {
    "__init__", "__new__", "__post_init__", "__init_subclass__", "__del__", "__getstate__",
    "__setstate__", "__reduce__", "__reduce_ex__", "__deepcopy__", "__copy__", "__subclasshook__",
    "__prepare_scriptable__",
}  # fmt: skip
# What runs where a class is called, or a torch.autograd.Function applied.
_RUN = ("__init__", "__new__", "__post_init__", "setup_context", "backward", "vjp")
# A module's dictionaries of hooks.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TENSOR, _ABSENT, _AGAIN = object(), object(), object()
# How a watched place is read; see `native/tensors.h`. A field is an attribute of what a weak
# reference refers to, and one's own an item of its dictionary: what a function remembers must not
# keep it alive.
ITEM, ATTRIBUTE, FIELD, OWN, LENGTH = range(5)


class Signature:
    """The constants that steps reach: one object for each tuple of them, compared by identity."""

    __slots__ = ("__weakref__",)


_signatures: weakref.WeakValueDictionary[tuple[Any, ...], Signature] = weakref.WeakValueDictionary()


@dataclass
class Reach:
    """What a step reaches.

    Attributes:
        tensors: in a fixed order.
        constants: everything else that may steer it, hashable; they keep nothing alive.
        watches: (how to read it, container, key, what is there), to notice a change.
        names: those that its code mentions; not all of them where it is not complete.
        missing: modules that its code imports, which are not there yet.
        complete: false if something opaque was met.
        leads_back: what is reached leads back to the step (or, of a method, to its object).
    """

    tensors: list[Tensor] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    watches: list[tuple[int, Any, Any, Any]] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    missing: set[str] = field(default_factory=set)
    complete: bool = True
    leads_back: bool = False  # to the step itself, though it is no function

    @functools.cached_property
    def signature(self) -> Signature:
        return _signatures.setdefault(tuple(self.constants), Signature())

    def now(self) -> list[Tensor] | None:
        """The tensors that are there now; None where anything else changed."""
        return native.watched(self.watches, _TENSOR, _ABSENT, _equal)


def _equal(a: Any, b: Any) -> bool:
    """Of two values that are not one and the same; numpy's have truth values of their own."""
    if isinstance(a, (float, complex)):  # NaN is itself, −0 is not 0
        return type(a) is type(b) and repr(a) == repr(b)
    return type(a) is type(b) and isinstance(a, _CONSTANTS) and bool(a == b)


class Walk:
    into_the_library = True  # that of Python: to the globals of its functions

    def __init__(self, names: frozenset[str]):
        self.looked_for = sorted(names)
        self.names = names  # and those that turn up
        self.found = Reach()
        self.seen: dict[int, int] = {}  # id → the how-manieth
        self.again: set[int] = set()

    def opaque(self) -> None:
        """Something was met that no watch sees into."""
        self.found.complete = False

    def endless(self) -> None:
        """There is more than can be looked at."""
        self.opaque()

    def unwatched(self) -> None:
        """As `opaque`, of what a walk can look behind."""
        self.opaque()

    def notice_leads_back(self, step: Any) -> None:
        owner = step.__self__ if isinstance(step, types.MethodType) else step
        function = isinstance(owner, types.FunctionType)
        self.found.leads_back = id(owner) in self.again and not function

    def look(self, value: Any, how: int, container: Any, key: Any) -> None:
        """One watched place, and what is there."""
        if isinstance(value, Tensor):
            self.found.watches.append((how, container, key, _TENSOR))
            self.found.tensors.append(value)
            self.found.constants.append(_TENSOR)
            if not self.names.isdisjoint(vars(value)):  # an attribute hung on a tensor
                self.opaque()
        else:
            self.found.watches.append((how, container, key, value))
            self.visit(value)

    def item(self, container: Any, key: Any) -> None:
        self.look(container[key], ITEM, container, key)

    def visit(self, value: Any) -> None:
        found = self.found
        if isinstance(value, types.FunctionType):
            value = source_of(value)
        if type(value) in weakref.ProxyTypes:  # they say that they are what they refer to
            self.opaque()
        elif is_constant(value):
            if not (type(value) in _CONSTANTS or is_fixed(type(value))):
                self.opaque()  # a subclass, with attributes or methods of its own
            text = isinstance(value, (float, complex, slice))  # as text NaN is itself, −0 not 0
            found.constants.append((ref(type(value)), str(value) if text else value))
        elif isinstance(value, _OF_A_CLASS):
            of = getattr(value, "__objclass__", type(value))
            found.constants.append((ref(of), getattr(value, "__name__", None)))
        elif isinstance(value, types.BuiltinFunctionType) and not isinstance(
            value.__self__, (types.ModuleType, type, types.NoneType)
        ):
            self.unwatched()  # a method of a list, say
            found.constants.append(value.__name__)
        elif isinstance(value, types.BuiltinFunctionType) or is_fixed(value):
            found.constants.append(value)
        elif id(value) in self.seen:
            self.again.add(id(value))
            found.constants.append((_AGAIN, self.seen[id(value)]))
        else:
            self.seen[id(value)] = len(self.seen)  # alive: it is reached from the step
            if len(self.seen) > MOST_OBJECTS or len(found.watches) > MOST_WATCHES:
                self.endless()
            else:
                self.visit_new(value)

    def visit_new(self, value: Any) -> None:
        self.found.constants.append(ref(type(value)))
        if isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.visit(value.__func__)
            self.visit(value.__self__)
        elif isinstance(value, functools.partial):
            self.parts(value, (value.func, value.args, value.keywords))
        elif isinstance(value, (staticmethod, classmethod)):
            self.parts(value, (value.__func__,))
        elif isinstance(value, property):
            self.parts(value, (value.fget, value.fset))
        elif type(value) in (list, tuple, dict, collections.OrderedDict):
            self.items(value)
        elif isinstance(value, types.ModuleType):
            if "__getattr__" in vars(value):
                self.opaque()
            self.found.constants.append(value.__name__)
            self.attributes(value.__dict__)
            self.class_attributes(type(value))
        elif isinstance(value, type):
            if not is_fixed(type(value)):  # a metaclass, with attributes of its own
                self.opaque()
            self.found.constants.append(ref(value))
            self.class_attributes(value)
            for base in changeable(value):  # code may make an instance, or apply it: runs these
                for name in _RUN:
                    if isinstance(vars(base).get(name), (types.FunctionType, staticmethod)):
                        self.item(base.__dict__, name)
        elif isinstance(value, torch.jit.ScriptModule):
            self.opaque()
        elif isinstance(value, nn.Module) and "_parameters" in vars(value):  # or a mock of one
            self.module(value)
        elif isinstance(value, tuple) and hasattr(value, "_fields") and dict_of(value) is None:
            self.items(value)
            self.class_attributes(type(value))
        elif (
            (dict_of(value) is not None or slots_of(type(value)))
            and not is_fixed(type(value))
            and not isinstance(value, CONTAINERS)
        ):
            self.instance(value)
            if isinstance(value, enum.Enum):
                self.item(value.__dict__, "_value_")
        else:
            self.unwatched()

    def parts(self, value: Any, parts: tuple[Any, ...]) -> None:
        """Of an object of a type written in C; it, or a subclass, may have attributes as well."""
        for part in parts:
            self.visit(part)
        self.instance(value)

    def items(self, value: Any) -> None:
        self.found.constants.append((ref(type(value)), len(value)))
        if len(value) > LIMIT:
            self.opaque()
            return
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            if isinstance(value, dict):
                self.visit(key)
            self.item(value, key)
        if not isinstance(value, tuple):
            self.found.watches.append((LENGTH, value, None, len(value)))

    def function(self, f: types.FunctionType) -> None:
        self.found.constants.append(f.__code__)
        self.names |= names_of(f.__code__)
        if not HIDDEN.isdisjoint(names_of(f.__code__)):
            self.unwatched()
        for name in imported(f):
            self.attribute(sys.modules, name)
            if name not in sys.modules and name.split(".")[0] not in sys.stdlib_module_names:
                self.found.missing.add(name)
        if {"dispatch", "registry"} <= f.__dict__.keys():  # functools.singledispatch
            self.opaque()
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            self.found.watches.append((FIELD, ref(f), name, getattr(f, name)))
        for cell in f.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not yet bound
                self.opaque()
            else:
                self.look(value, ATTRIBUTE, cell, "cell_contents")
        module = str(f.__globals__.get("__name__")).split(".")[0]
        through = self.into_the_library or module not in sys.stdlib_module_names
        for name in sorted(globals_of(f.__code__)) if through else ():
            if name in f.__globals__:
                self.found.constants.append(name)
                self.item(f.__globals__, name)
            else:  # a builtin: a global of that name may turn up
                self.found.watches.append((ITEM, f.__globals__, name, _ABSENT))
        self.attributes_of(f)
        self.visit(f.__defaults__)
        self.visit(f.__kwdefaults__)
        if f.__dict__.get("__wrapped__") is not None:
            self.visit(f.__dict__["__wrapped__"])

    def attributes(self, attributes: dict[str, Any]) -> None:
        """Those that code mentions; where one is absent, that it stays so."""
        for name in self.looked_for:
            self.attribute(attributes, name)

    def attribute(self, attributes: dict[str, Any], name: str) -> None:
        if name in attributes:
            self.found.constants.append(name)
            self.item(attributes, name)
        else:
            self.found.watches.append((ITEM, attributes, name, _ABSENT))

    def attributes_of(self, f: types.FunctionType) -> None:
        """As `attributes`; a dictionary that a function remembers would lead back to it."""
        for name in self.looked_for:
            if name in f.__dict__:
                self.found.constants.append(name)
                self.look(f.__dict__[name], OWN, ref(f), name)
            else:
                self.found.watches.append((OWN, ref(f), name, _ABSENT))

    def instance(self, value: Any) -> None:
        """Of what class it is, and what that has; its attributes."""
        cls, own = type(value), dict_of(value)
        self.found.constants.append(ref(cls))
        # It may be given another class, or other attributes.
        how, at = attribute_of(value)
        self.found.watches.append((how, at, "__class__", cls))
        if own is not None:
            self.found.watches.append((how, at, "__dict__", own))
            self.attributes(own)
        self.class_attributes(cls)
        for slot in slots_of(cls):
            name = slot.__name__
            if name in self.looked_for:
                if _first(cls, name) is not slot:  # hidden by that of a class below
                    self.opaque()
                    continue
                try:
                    inside = slot.__get__(value)
                except AttributeError:
                    self.found.watches.append((how, at, name, _ABSENT))
                else:
                    self.found.constants.append(name)
                    self.look(inside, how, at, name)

    def class_attributes(self, cls: type) -> None:
        for base in changeable(cls):
            self.special_methods(base)
            self.found.watches.append((LENGTH, base.__dict__, None, len(vars(base))))
            for name in (*self.looked_for, "forward", "__call__"):
                if name in vars(base):
                    self.found.constants.append(name)
                    self.item(base.__dict__, name)
                else:  # it may be set there later, and hide that of a base
                    self.found.watches.append((ITEM, base.__dict__, name, _ABSENT))

    def special_methods(self, cls: type) -> None:
        """Those by which an operator, a protocol or a missing attribute reaches code."""
        if cls.__module__ == "argparse":  # a Namespace: compared as a whole it is not watched
            return
        for of in ("__dataclass_fields__", "__match_args__"):  # which methods and patterns read
            names = vars(cls).get(of)
            if isinstance(names, (dict, tuple)):
                self.names |= {name for name in names if isinstance(name, str)}
        for name, found in list(vars(cls).items()):
            if not name.startswith("__") or name in _INERT or not _is_called(found):
                continue
            if name in ("__getattr__", "__getattribute__"):  # attributes may come from anywhere
                self.unwatched()
            self.found.constants.append(name)
            self.item(cls.__dict__, name)

    def module(self, m: nn.Module) -> None:
        attributes = m.__dict__
        for hooks in (*(attributes[name] for name in HOOKS), *hooks_of_all_modules()):
            if hooks:
                self.unwatched()
            self.found.watches.append((LENGTH, hooks, None, len(hooks)))
        for name in ("_parameters", "_buffers", "_modules"):
            self.items(attributes[name])
        for name in ("_parameters", "_buffers", "_modules", *HOOKS):
            self.found.watches.append((ITEM, attributes, name, attributes[name]))
        if "_compiled_call_impl" in attributes:  # set by module.compile(); forward is as it was
            expect_compiled()
        self.attribute(attributes, "training")
        self.attribute(attributes, "forward")
        if is_fixed(type(m)):
            self.found.constants.append(ref(type(m)))
            self.found.watches.append((FIELD, ref(m), "__class__", type(m)))
        else:
            self.instance(m)
        bases = [b for b in type(m).__mro__ if is_fixed(b) and b not in nn.Module.__mro__]
        for base in bases:  # what PyTorch's forward may read, here or, of a subclass, there
            if base is not type(m) and isinstance(vars(base).get("forward"), types.FunctionType):
                self.names |= names_of(vars(base)["forward"].__code__)
        if bases:
            for name, value in sorted(attributes.items()):
                if isinstance(value, _READ_BY_TORCH) and name != "training":
                    self.found.constants.append(name)
                    self.item(attributes, name)


def is_constant(value: Any) -> bool:
    """Compared by value."""
    return isinstance(value, _CONSTANTS) and not isinstance(value, enum.Enum)


def hooks_of_all_modules() -> list[Any]:
    return [vars(nn.modules.module)["_global" + name] for name in HOOKS]


def is_fixed(value: Any) -> bool:
    """A module, class or function whose meaning does not change while a program runs."""
    if isinstance(value, types.ModuleType):
        return _is_fixed_name(value.__name__)
    if isinstance(value, types.FunctionType):
        # Where it was written, and where it says: functools.wraps copies that from what it wraps.
        return _is_fixed_name(value.__globals__.get("__name__")) and _is_fixed_name(
            value.__module__
        )
    return isinstance(value, type) and _is_fixed_name(value.__module__)


def changeable(cls: type) -> list[type]:
    """A class and its bases, where somebody may set an attribute."""
    return [b for b in cls.__mro__ if not (b.__flags__ & _IMMUTABLE or is_fixed(b))]


def _is_fixed_name(module: Any) -> bool:
    root, *below = str(module).split(".")
    # Of our own package the steps of cells are walked, and models.
    ours = root == "ostinato" and below[:1] != ["models"] and below != ["nn", "steps"]
    return root in _FIXED or ours


def dict_of(value: Any) -> dict[str, Any] | None:
    """An object's own attributes, but for those in slots."""
    try:
        found = object.__getattribute__(value, "__dict__")  # past what its class makes of it
    except AttributeError:
        return None
    return found if type(found) is dict else None


def slots_of(cls: type) -> list[types.MemberDescriptorType]:
    """Of a class and its bases: two may have the same name."""
    return [
        found
        for base in changeable(cls)
        if "__slots__" in vars(base)
        for found in vars(base).values()
        if isinstance(found, types.MemberDescriptorType)
    ]


def _is_called(found: Any) -> bool:
    """Whether an attribute of a class may run code of somebody's, as a special method."""
    function = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if isinstance(function, types.FunctionType):
        return function.__globals__.get("__name__") != "dataclasses"
    return callable(found) or (
        hasattr(type(found), "__get__") and not isinstance(found, _OF_A_CLASS)
    )


def attribute_of(value: Any) -> tuple[int, Any]:
    """How one of an object is watched: not keeping it alive, where that can be."""
    return (FIELD, ref(value)) if type(value).__weakrefoffset__ else (ATTRIBUTE, value)


def _first(cls: type, name: str) -> Any:
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
