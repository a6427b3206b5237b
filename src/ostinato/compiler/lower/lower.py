"""From a pass over a step graph (forward or backward) to a program.

Stages, in order: `Chains` rewrites chains of additions; `sections` says when each value is
computed; `schedule` orders items and forms blocks; `Arrangement` gives places; `Emitter` writes
instructions.
"""

from __future__ import annotations

from dataclasses import replace

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import ONCE
from ostinato.compiler.lower.buffers import Arrangement, CannotHoist, Storage
from ostinato.compiler.lower.emit import MAX_BLOCK, BlockTooLarge, Emitter
from ostinato.compiler.lower.fuse_gemm import Chains
from ostinato.compiler.lower.hoist import AFTER, BEFORE, LOOP, reachable, sections
from ostinato.compiler.lower.schedule import schedule
from ostinato.compiler.lower.spec import Lowered, Pass
from ostinato.engine.program import Program


def lower(p: Pass) -> Lowered:
    """The program of a pass.

    Raises:
        Unsupported: the engine cannot play it.
    """
    for limit in (MAX_BLOCK - 4, MAX_BLOCK // 3, MAX_BLOCK // 10):
        try:
            return _lowered(p, limit)
        except BlockTooLarge:
            continue
        except CannotHoist:  # the bits are the same without
            return lower(replace(p, hoist=False))
    raise Unsupported("a part of the step is larger than the engine's blocks")


def _lowered(p: Pass, max_block: int) -> Lowered:
    chains = Chains(p)
    nodes = [n for n in reachable(chains.roots(), p.is_leaf) if n.kind != ONCE]
    carry_out = [o.node for o in chains.outputs if o.argument in p.carry_names]
    section = sections(nodes, {c.read for c in p.carries}, carry_out, p.hoist, p.is_leaf)
    section.update(dict.fromkeys(chains.bridged, LOOP))
    computed = [n for n in nodes if not p.is_leaf(n) and n.op != "const"]
    kept = {o.node for o in chains.outputs} | set(chains.saved)
    for n in computed:
        views = n.op in ("slice", "concat")
        kept |= {i for i in n.inputs if views or section.get(i) != section[n]}
    items = {
        s: schedule([n for n in computed if section[n] == s], p.is_leaf, max_block, kept)
        for s in (BEFORE, LOOP, AFTER)
    }
    storage = Storage(p)
    Arrangement(storage, chains, computed, section, items)
    emitter = Emitter(storage, chains.sums)
    instructions = {s: tuple(emitter.section(items[s])) for s in (BEFORE, LOOP, AFTER)}
    carries = tuple(storage.carry(c) for c in p.carries)
    program = Program(
        n_arguments=len(storage.arguments),
        descending=p.descending,
        buffers=tuple(storage.buffers),
        weights=tuple(emitter.weights),
        gradients=tuple(emitter.gradients),
        carries=carries,
        once=tuple(emitter.once),
        before=instructions[BEFORE],
        loop=instructions[LOOP],
        after=instructions[AFTER],
    )
    saved = tuple(storage.saved_leaf(n) for n in chains.saved)
    return Lowered(program, tuple(storage.arguments), storage.tapes, saved)
