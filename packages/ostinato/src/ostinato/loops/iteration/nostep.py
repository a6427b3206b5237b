"""The reasons for which the iterations of a loop are not one scan."""

from __future__ import annotations

from ostinato.compiler.errors import Unsupported


class NoStep(Unsupported):
    """The iterations run in Python.

    Attributes:
        quiet: whether there is no warning, because the loop is not over tensors.
    """

    def __init__(self, reason: str, op: str | None = None, *, quiet: bool = False):
        super().__init__(reason, op)
        self.quiet = quiet


class Stale(NoStep):
    """The step differs from its plan: it is examined again."""


class Periodic(NoStep):
    """The iterations branch in one way after each `period` of them."""

    def __init__(self, reason: str, op: str | None = None, *, period: int = 0):
        super().__init__(reason, op)
        self.period = period


class Narrowed(NoStep):
    """Only the iterations from `begin` up to `end` take the same branches."""

    def __init__(self, reason: str, op: str | None = None, *, begin: int = 0, end: int = 0):
        super().__init__(reason, op)
        self.begin, self.end = begin, end


class Counted(NoStep):
    """A number of the state changes from iteration to iteration.

    Attributes:
        name: the name of the number.
        by: how much a whole number grows; None for others.
    """

    def __init__(
        self, reason: str, op: str | None = None, *, name: str = "", by: int | None = None
    ):
        super().__init__(reason, op)
        self.name, self.by = name, by


class ListRead(NoStep):
    """An iteration reads, or makes shorter, a list that it appends to."""


MODE_LEFT = "an iteration leaves gradients turned on or off, or another default type"
# What to write instead, by a part of the reason.
REMEDIES = {
    "changes its form in each": "hand on a tensor, or compute it from the loop's variable",
    "changes in a different way": "hand on a tensor, or compute it from the loop's variable",
    "a list that iterations append to": "read its last items as x[-1], or stack it after the loop",
    "branch on the loop's variable": "torch.where with a tensor of flags, indexed like the input",
    "a number that changes": "torch.where with a tensor of flags, indexed like the input",
    "a function that is defined outside": "give that function what it uses as an argument",
    "which a scan would not do each time": "do it after the loop, from its outputs",
    "for the type of the loop's": "ask by isinstance(t, int)",
    "read other elements than the first": (
        "read the same elements in each iteration, and choose by torch.where(use[t], a, b); a "
        "random choice is drawn before the loop, use = torch.rand(T) < ratio"
    ),
    "an iteration appends a list, dict": "append a copy of it",
    "random numbers by another": (
        "draw them before the loop, use = torch.rand(T) < ratio, and take torch.where(use[t], a, b)"
    ),
    "leaves gradients turned": "turn them on or off by `with torch.set_grad_enabled(…):`",
    "an iteration prints": "print after the loop, from its outputs",
    "writes to a log": "log after the loop, from its outputs",
    "opens a file": "read and write files before and after the loop",
    "as a number that Python must know": "index a tensor of these numbers by the loop's variable",
    "index by other means": "index a tensor of these numbers by the loop's variable",
    "a slice of another length": (
        "sums, means, maxima, softmax and products of the slice; for others the full length with a "
        "mask, or a running value as state"
    ),
    "emits a tensor that the next one changes": "append a clone of it",
    "changes a tensor in place": "compute a new tensor: h = h + x",
    "changes an element of the sequence": "compute a new tensor: y = x[t] + 1",
    "elements of a tensor that iterations write": "read one place before the written one",
    "is not bound after the first": "bind it before the loop",
    **dict.fromkeys(
        ("(__float__)", "(__int__)", "(item)", "(tolist)", "(numpy)", "holds a ndarray"),
        "append the tensor, or compute with it, and convert it after the loop",
    ),
    "may end the loop": "a fixed number of iterations, and torch.where(done, h, new)",
    "hands out": "append to a list, and yield from it after the loop",
    "catches errors": "put try around the loop",
    "deletes a name": "bind None to the name, or delete it after the loop",
    "has an else part": "write the statements of else after the loop",
    "defines a class": "define it before the loop",
    "an iteration imports": "import before the loop",
    "variable is not a local name": "go through the loop with a local name",
    "an iteration binds a": "bind a local name, and the other one after the loop",
    "which is not a structure of tensors": "keep state in tensors, lists, dicts or dataclasses",
}


def remedy_for(reason: str, op: str | None = None) -> str:
    """What to write instead, or ""."""
    text = f"{reason} ({op})"
    return next((what for part, what in REMEDIES.items() if part in text), "")
