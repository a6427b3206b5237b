"""The loops of a model: its modules are marked, and calls below them are those of one caller."""

from __future__ import annotations

import torch

from ostinato.loops.inplace import MARK, Caller, Redirect


def take_loops(model: torch.nn.Module) -> Caller:
    """Run the loops of all functions that a model's modules call natively, where they can be."""
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    caller = Caller(model, classes={type(m): None for m in modules})
    for module in modules:
        vars(module)[MARK] = caller
    return caller


def leave_loops(model: torch.nn.Module) -> None:
    """Undo `take_loops`: functions that no other caller has get their own code."""
    redirects: dict[Redirect, None] = {}
    for module in model.modules():
        caller = vars(module).pop(MARK, None)
        redirects |= caller.redirects if caller is not None else {}
        del caller
    for redirect in redirects:
        if not redirect.callers:
            redirect.give_back()


def callers_of(model: torch.nn.Module) -> list[Caller]:
    """The callers of the modules of a tree."""
    found = [vars(module).get(MARK) for module in model.modules()]
    return [*dict.fromkeys(caller for caller in found if caller is not None)]
