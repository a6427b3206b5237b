"""What packages built on the engine use beside its public names: graphs, lowering, programs.

A model that runs without torch is a graph of nodes (`Node`), lowered to a program (`lower`,
`Program`) that the engine plays (`native`). A graph is recorded from a step (`record`,
`saved_step`), which needs torch. Names are imported when they are first used, so that those of the
first three groups never import torch. They may change with every version: a package that uses them
requires exactly its own version of ostinato.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostinato import tree as tree
    from ostinato._extras import MissingPackageError as MissingPackageError
    from ostinato._extras import install as install
    from ostinato._extras import needs as needs
    from ostinato.arguments import bytes_in as bytes_in
    from ostinato.arguments import checked as checked
    from ostinato.compiler.capture.record import check_recording as check_recording
    from ostinato.compiler.capture.record import record as record
    from ostinato.compiler.errors import Unsupported as Unsupported
    from ostinato.compiler.graph import from_aten as from_aten
    from ostinato.compiler.graph.node import ONCE as ONCE
    from ostinato.compiler.graph.node import ROWS as ROWS
    from ostinato.compiler.graph.node import Node as Node
    from ostinato.compiler.graph.node import axis_of as axis_of
    from ostinato.compiler.graph.node import reachable as reachable
    from ostinato.compiler.graph.saved import TensorNames as TensorNames
    from ostinato.compiler.graph.saved import saved_step as saved_step
    from ostinato.compiler.lock import one_at_a_time as one_at_a_time
    from ostinato.compiler.lower.hoist import HOIST_BELOW as HOIST_BELOW
    from ostinato.compiler.lower.lower import lower as lower
    from ostinato.compiler.lower.spec import CarrySpec as CarrySpec
    from ostinato.compiler.lower.spec import Leaf as Leaf
    from ostinato.compiler.lower.spec import Lowered as Lowered
    from ostinato.compiler.lower.spec import Output as Output
    from ostinato.compiler.lower.spec import PassSpec as PassSpec
    from ostinato.compiler.play.segments import BudgetError as BudgetError
    from ostinato.engine import native as native
    from ostinato.engine.ops import OPS as OPS
    from ostinato.engine.program import MAX_WIDTH as MAX_WIDTH
    from ostinato.engine.program import NONE as NONE
    from ostinato.engine.program import Code as Code
    from ostinato.engine.program import Instruction as Instruction
    from ostinato.engine.program import Kind as Kind
    from ostinato.engine.program import Operand as Operand
    from ostinato.engine.program import Program as Program
    from ostinato.engine.program import Weight as Weight
    from ostinato.engine.reference import over_axis as over_axis
    from ostinato.engine.reference import spread as spread
    from ostinato.engine.reference import taken as taken
    from ostinato.engine.rows import dealt as dealt
    from ostinato.forms import compiled as compiled
    from ostinato.machine import available_memory as available_memory
    from ostinato.machine import cpu_quota as cpu_quota
    from ostinato.machine import memory as memory

# module → its names; "" is the module itself
_NAMES = {
    # errors, structures, the machine
    "_extras": "MissingPackageError install needs",
    "compiler.errors": "Unsupported",
    "compiler.lock": "one_at_a_time",
    "machine": "available_memory cpu_quota memory",
    # graphs and their lowering
    "compiler.graph.node": "ONCE ROWS Node axis_of reachable",
    "compiler.lower.hoist": "HOIST_BELOW",
    "compiler.lower.lower": "lower",
    "compiler.lower.spec": "CarrySpec Leaf Lowered Output PassSpec",
    # programs and the engine
    "engine": "native",
    "engine.ops": "OPS",
    "engine.program": "MAX_WIDTH NONE Code Instruction Kind Operand Program Weight",
    "engine.reference": "over_axis spread taken",
    "engine.rows": "dealt",
    # recording a step, with torch
    "": "tree",
    "arguments": "bytes_in checked",
    "forms": "compiled",
    "compiler.capture.record": "check_recording record",
    "compiler.graph": "from_aten",
    "compiler.graph.saved": "TensorNames saved_step",
    "compiler.play.segments": "BudgetError",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ostinato.internal' has no attribute {name!r}")
    home = f"ostinato.{_HOME[name]}".rstrip(".")
    try:
        value = getattr(importlib.import_module(home), name)
    except AttributeError:  # a module that nobody has imported yet
        value = importlib.import_module(f"{home}.{name}")
    globals()[name] = value
    return value
