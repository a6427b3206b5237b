"""From a pass over a step graph, forward or backward, to a program: the passes in their order.

Each pass of the lowering takes frozen values and returns a new one; none edits its arguments.
"""

from __future__ import annotations

from dataclasses import replace

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.lower.buffers import CannotHoist, assign_buffers, without_copies
from ostinato.compiler.lower.by_places import find_by_places
from ostinato.compiler.lower.emit import MAX_BLOCK, BlockTooLarge, emit
from ostinato.compiler.lower.fuse_gemm import fuse_gemm
from ostinato.compiler.lower.hoist import bridge_carries, hoist
from ostinato.compiler.lower.schedule import schedule, sink
from ostinato.compiler.lower.spec import Lowered, PassSpec, split_outputs


def lower(spec: PassSpec) -> Lowered:
    """The program of a pass.

    Raises:
        Unsupported: the engine cannot play it.
    """
    # The margin is for constants and spread columns, which need instructions of their own.
    for max_block in (MAX_BLOCK - 4, MAX_BLOCK // 3, MAX_BLOCK // 10):
        try:
            # Until Python 3.11 each cached_property, as in PassSpec, has a lock.
            with one_at_a_time:
                return _lowered(spec, max_block)
        except BlockTooLarge:
            continue
        except CannotHoist:  # the bits are the same without
            return lower(replace(spec, hoist=False))
    raise Unsupported("a part of the step is larger than the engine's blocks")


def _lowered(spec: PassSpec, max_block: int) -> Lowered:
    spec = split_outputs(spec)  # each output in one piece
    spec = fuse_gemm(spec)  # products and additions → accumulations
    spec = find_by_places(spec)  # products that read elements by places, without a take
    sections = hoist(spec)  # when each value is computed: before, loop or after
    sections = bridge_carries(sections)  # copies of carries that are read after the loop
    items = schedule(sections, max_block)  # the order, and the blocks
    items = sink(sections, items, max_block)  # values computed where they are read
    layout = assign_buffers(sections, items)  # where each value lies
    items, layout = without_copies(items, layout)  # results written at once where they are copied
    return emit(sections, items, layout)  # the instructions
