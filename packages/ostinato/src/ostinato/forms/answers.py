"""Branches on the values of a batch: `if mask.any()`, `if torch.all(n == 0)`.

A *question* is a tensor, computed from the step's arguments, that becomes True or False in Python.
The step is recorded as if the *answers* were the same at every element: those of the first one. The
tensors behind a question are further outputs of the step, so that after the run all questions are
answered in one call. If an answer differs, the run is discarded and the Python loop gives the
result. It records the answers of all elements; the most frequent ones are tried next.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments, Results
from ostinato.compiler import torch_private
from ostinato.compiler.errors import ANOTHER_COURSE, Mispredicted, Unsupported
from ostinato.compiler.steps import Recent, code_key
from ostinato.compiler.torch_compat import OwnMode
from ostinato.eager import Step, split_result
from ostinato.forms import known
from ostinato.forms.form import Outcome, Rest

Answers = tuple[bool, ...]
QUESTIONS = ("__bool__", "is_nonzero", "item")  # the last only for truth values
MOST_FAILURES = 3  # in a row; then the step runs in the Python loop without a further try
MOST_QUESTIONS = 64  # of one step
# These are applied to each row first, so that T · B truth values are kept, not T · B · H.
_BY_ROWS = {
    torch.any: "any",
    Tensor.any: "any",
    torch.all: "all",
    Tensor.all: "all",
    torch_private.is_all_true: "all",
}


@dataclass
class _Known:
    """The answers to be tried for a step's code, and how many calls in a row had others."""

    answers: Answers
    failures: int = 0


class _Root(NamedTuple):
    """In a question: the output of that number."""

    number: int


class _Call(NamedTuple):
    """In a question: a function of torch, and arguments that are plain values or such calls."""

    function: Any
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    def of(self, roots: tuple[Tensor, ...]) -> Tensor:
        """Its result, from the outputs of one step."""

        def filled(part: Any) -> Any:
            if isinstance(part, _Root):
                return roots[part.number]
            return part.of(roots) if isinstance(part, _Call) else part

        options = {name: filled(part) for name, part in self.options}
        found: Tensor = self.function(*map(filled, self.arguments), **options)
        return found


class _Questions(OwnMode):
    """Answers the questions of one run of a step.

    Attributes:
        found: the answers so far.
        asked: (number, question) → the tensors that the question is computed from.
    """

    def __init__(self, given: list[Tensor], answers: Answers | None, n_rows: int):
        """answers: the answers to give; None: the true ones."""
        super().__init__()
        self.answers, self.n_rows = answers, n_rows
        self.known = {id(t): t for t in given}  # computed from arguments, and kept alive
        self.made: dict[int, tuple[Any, Any, Any]] = {}  # those of one number, with their calls
        self.found: list[bool] = []
        self.asked: dict[tuple[int, Any], tuple[Tensor, ...]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.left or not any(id(leaf) in self.known for leaf in tree.leaves((args, kwargs))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in QUESTIONS and (name != "item" or args[0].dtype is torch.bool):
            return self.answer(args[0])
        out = func(*args, **kwargs)
        given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        changed = given[0] if out is None else out
        self.known |= {id(t): t for t in [changed, *tree.leaves(out)] if isinstance(t, Tensor)}
        if any(changed is t for t in given):  # changed in place: its earlier values are lost
            self.made.clear()
        elif isinstance(out, Tensor) and not out.dim():
            self.made[id(out)] = func, args, kwargs
        return out

    def answer(self, question: Tensor) -> bool:
        if self.answers is None:
            with torch_private.DisableTorchFunction():  # other modes refuse to read a value
                found = bool(question)
        else:
            n = len(self.found)
            if n >= min(len(self.answers), MOST_QUESTIONS):
                raise Unsupported(ANOTHER_COURSE)
            found, roots = self.answers[n], list[Tensor]()
            asked = self.part(question, roots)
            if not any(root.dim() for root in roots):  # from numbers that all rows share
                asked, roots = _Root(0), [question.detach()]
            self.asked[n, asked] = tuple(roots)
        self.found.append(found)
        return found

    def part(self, leaf: Any, roots: list[Tensor]) -> Any:
        """A question, or a part of one, without its tensors: these become roots."""
        if id(leaf) in self.made:
            func, args, kwargs = self.made[id(leaf)]
            if func in _BY_ROWS and len(args) == 1 and not kwargs and self.has_rows(args[0]):
                by_rows = getattr(args[0].flatten(1), _BY_ROWS[func])(1)
                return _Call(func, (self.root(by_rows, roots),), ())
            options = tuple([(name, self.part(value, roots)) for name, value in kwargs.items()])
            return _Call(func, tuple([self.part(value, roots) for value in args]), options)
        if id(leaf) in self.known:
            return self.root(leaf, roots)
        if isinstance(leaf, (Tensor, list, tuple, dict, set, slice)):
            raise Unsupported(
                "a branch depends on more than the step's arguments and numbers: use torch.where"
            )
        return leaf

    def has_rows(self, leaf: Any) -> bool:
        return id(leaf) in self.known and leaf.dim() > 1 and leaf.shape[0] == self.n_rows

    @staticmethod
    def root(leaf: Tensor, roots: list[Tensor]) -> _Root:
        roots.append(leaf.detach())
        return _Root(len(roots) - 1)


def applies(a: Arguments) -> bool:
    """Whether the step is known to branch on values of the batch, with answers to be tried."""
    tried = None if a.stand_ins is not None else _of(a)
    return tried is not None and tried.failures < MOST_FAILURES


def find(a: Arguments, rest: Rest) -> Outcome:
    """The call with the guessed answers."""
    tried = _of(a)
    assert tried is not None
    return rest(_with_answers(a, tried.answers))


def otherwise(a: Arguments, refusal: Unsupported, rest: Rest) -> Outcome:
    """The call with the answers of its first element, if its step is refused for a branch."""
    # Under a transform an answer cannot be checked afterwards.
    asks = refusal.op in QUESTIONS and a.stand_ins is None
    answers = _first_answers(a) if asks else None
    if answers is None:
        return refusal
    found = rest(_with_answers(a, answers))
    if isinstance(found, Unsupported) and not found.is_final:
        _remember(a, (), MOST_FAILURES)
        return refusal
    return found


def _of(a: Arguments) -> _Known | None:
    """The findings about a step, by its code and, for iterations of a loop, by their variant."""
    of_code: dict[Any, _Known] = known.answers.get(code_key(a.given), {})
    return of_code.get(a.variant)


def _first_answers(a: Arguments) -> Answers | None:
    """The answers at the first element, by a run of the step; None if they are not to be tried.

    The run is one of `search_step`: the step is stopped before it changes a tensor from outside.
    """
    from ostinato.compiler.capture.captures import search_step  # not a part of every start
    from ostinato.compiler.capture.guards.observation import Observation

    if _of(a) is not None or a.weights is not None or a.of_layer:
        return None
    found: list[bool] = []
    observation = Observation(a.given, places=a.places)
    try:
        with observation:
            search_step(a._replace(step=_questioned(a, None, found)))
    except Unsupported:  # the reason is given when the step is recorded
        pass
    finally:
        observation.snapshots.put_back()
    return _remember(a, tuple(found), 0 if found else MOST_FAILURES) or None


def _with_answers(a: Arguments, answers: Answers) -> Arguments:
    """The call with these answers, whose step returns the tensors of its questions, too."""

    def back(of: Results) -> Results:
        return _checked(a, answers, of)

    step = _questioned(a, answers, [])
    return a.in_form("assumed answers of branches", back, step=step, answers=answers)


def recording_answers(a: Arguments, found: list[Answers]) -> Step:
    """The step, which records its answers."""

    def step(carry: Any, x: Any) -> Any:
        with _Questions([*tree.leaves(carry), *tree.leaves(x)], None, a.n_rows) as questions:
            result = a.step(carry, x)
        found.append(tuple(questions.found))
        return result

    return step


def learn(a: Arguments, found: list[Answers]) -> None:
    """Try the most frequent answers next; without any, those that were tried before."""
    if not found:
        return
    ((answers, _),) = collections.Counter(found).most_common(1)
    tried = _of(a)
    _remember(a, answers, 0 if tried is None else tried.failures)


def _checked(a: Arguments, answers: Answers, results: Results) -> Results:
    """The outputs of the step, without the tensors of its questions.

    Raises:
        Mispredicted: at some element a question has another answer than assumed.
    """
    ys = list(results.ys)
    _, _, (spec, (_, questions, parts)) = results.y_spec
    n = sum(len(of) for _, _, of in parts)
    outputs, roots = ys[: len(ys) - n], iter(a.ragged.select_valid(ys[len(ys) - n :], 0))
    tried = _of(a)
    for (number, question), (_, _, of) in zip(questions or (), parts, strict=True):
        found = _answered(question, tuple([next(roots) for _ in of]))
        of_each = found.numel() == a.ragged.n_steps
        if not of_each or not torch.all(found == answers[number]):
            if tried is not None:
                tried.failures += 1
            first = int((found != answers[number]).int().argmax()) if of_each else 0
            raise Mispredicted(
                "a branch of the step on the values of the batch goes one way at some elements and "
                "another way at others",
                at=first,
            )
    if tried is not None:
        tried.failures = 0
    return Results(outputs, results.finals, spec)


def _answered(question: Any, roots: tuple[Tensor, ...]) -> Tensor:
    """The answers at all elements, from outputs `[T, …]`."""
    with torch.no_grad():
        if isinstance(question, _Root):
            return roots[0].flatten() != 0
        if question in [_Call(function, (_Root(0),), ()) for function in _BY_ROWS]:
            found: Tensor = getattr(roots[0].flatten(1), _BY_ROWS[question.function])(1)
        else:
            found = torch.vmap(lambda *of: question.of(of))(*roots)
        return found != 0


def _remember(a: Arguments, answers: Answers, failures: int = 0) -> Answers:
    of_code = known.answers.setdefault(code_key(a.given), Recent())
    of_code[a.variant] = _Known(answers, failures)
    return answers


def _questioned(a: Arguments, answers: Answers | None, found: list[bool]) -> Step:
    """The step with these answers (None: the true ones), which are added to `found`.

    It returns the tensors of its questions beside its output.
    """
    step, spec = a.step, a.carry_spec
    like = tree.unflatten([leaf.detach() for leaf in a.leaves], spec)

    def speculating(carry: Any, x: Any) -> Any:
        leaves = [*tree.leaves(carry), *tree.leaves(x)]
        with _Questions(leaves, answers, leaves[0].shape[0] if leaves[0].dim() else 0) as questions:
            try:
                result = step(carry, x)
            finally:
                found[:] = questions.found
        new, y = split_result(result, like, spec)
        return tree.unflatten(new, spec), (y, questions.asked)

    return speculating
