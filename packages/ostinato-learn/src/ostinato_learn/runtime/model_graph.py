"""`ModelGraph`: a whole network as a value: layers from bottom to top, a readout and a head.

    stages    `Scan`: a step in one direction or two, their outputs side by side;
              `Embed`, at the bottom: token numbers to rows of a table, and the answer of a graph of
              its own to the spelling of each token
    readout   `each`: the top stage's output at every step;  `last`: its output at the last step of
              each direction;  `scan`: a step over the outputs, such as a running mean, and a map
              from its carry to what is read
    head      a map from what is read to the answer
    ahead     of a forecaster: the head gives a vector for each step ahead, and a map from such a
              vector, and what is known of that step, gives its answer

`composed` makes one step of a model that reads in one direction: what a stream plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ostinato.internal import Node
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.step_graph import OPSET, Shapes, StepGraph
from ostinato_learn.runtime.values import entries, fail, items, text, whole

MAX_STAGES = 256
MAX_AHEAD = 1 << 20  # steps
KINDS = ("each", "last", "scan")


@dataclass(frozen=True)
class Direction:
    """A step that runs over a sequence; reverse: from its end to its beginning."""

    step: StepGraph
    reverse: bool = False

    @cached_property
    def ending(self) -> tuple[StepGraph, int]:
        """The step without outputs, and the place among its states of its output.

        So only the last output is kept.
        """
        (output,) = self.step.outputs
        if output in self.step.new_states:
            return replace(self.step, outputs=()), self.step.new_states.index(output)
        c = Composer()
        inputs = [c.input(n.width) for n in self.step.inputs]
        states = [c.state(n.width) for n in self.step.states]
        new_states, (last,) = c.inlined(self.step, inputs, states)
        states.append(c.state(last.width))
        new_states.append(c.joint(last))
        step = StepGraph(tuple(inputs), tuple(states), tuple(new_states), (), frozenset(c.joints))
        return step, len(states) - 1


@dataclass(frozen=True)
class Scan:
    """A layer.

    Attributes:
        name: the name in messages, such as "gru layer 1".
        directions: one or two, each a step with one input and one output.
    """

    name: str
    directions: tuple[Direction, ...]

    @property
    def n_inputs(self) -> int:
        return self.directions[0].step.inputs[0].width

    @property
    def width(self) -> int:
        """The number of columns of the outputs."""
        return sum(d.step.outputs[0].width for d in self.directions)


@dataclass(frozen=True)
class Embed:
    """Tokens as vectors.

    Attributes:
        n_tokens: V.
        width: E, columns of the table.
        table: the name of the table `[V, E]`, of which a token's row is taken; None: rows of zeros
            and a one, V columns.
        spelling: a graph that reads the characters of a token; its answer follows the row.
    """

    n_tokens: int
    width: int
    table: str | None
    spelling: ModelGraph | None = None

    @property
    def n_columns(self) -> int:
        """The number of columns of a token's vector."""
        return self.width + (self.spelling.n_outputs if self.spelling else 0)


@dataclass(frozen=True)
class ReadoutGraph:
    """The part of the top stage's outputs that the head reads.

    Attributes:
        kind: "each", "last" or "scan".
        step: of a scan, over the outputs of all directions side by side; it has no outputs.
        answer: of a scan, from the step's carry to what is read.
    """

    kind: str
    step: StepGraph | None = None
    answer: StepGraph | None = None


@dataclass(frozen=True)
class Ahead:
    """The answers for steps ahead.

    Attributes:
        n_steps: h; the head's output is h vectors, one after the other.
        each: a map from such a vector and what is known of its step to the answer for it.
    """

    n_steps: int
    each: StepGraph

    @property
    def n_known(self) -> int:
        """The number of columns of the known inputs of a step."""
        return self.each.inputs[1].width


@dataclass(frozen=True)
class ModelGraph:
    """A network.

    Attributes:
        embed: at the bottom, of a model that reads tokens; else None.
        layers: from bottom to top, at least one.
        readout, head: from the top layer's outputs to the answer, a map with one output.
        ahead: of a forecaster: from the head's output to the answers for all steps ahead.
    """

    embed: Embed | None
    layers: tuple[Scan, ...]
    readout: ReadoutGraph
    head: StepGraph
    ahead: Ahead | None = None

    @property
    def n_inputs(self) -> int:
        """F, the number of columns that the lowest layer reads."""
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int:
        """The number of columns of the answer."""
        return (self.ahead.each if self.ahead else self.head).outputs[0].width

    def why_not_streamable(self) -> str | None:
        """Why the model cannot answer step by step; None if it can."""
        if self.ahead is not None:
            return "a forecaster scales each window as a whole before it reads it"
        for layer in self.layers:
            if any(d.reverse for d in layer.directions):
                return f"{layer.name} also reads from the end of the sequence to its beginning"
        return None

    @cached_property
    def _composed(self) -> tuple[StepGraph, StepGraph]:
        why_not = self.why_not_streamable()
        if why_not is not None:
            raise ValueError(
                f"this model has no single step: {why_not}; wanted one that answers step by step "
                "(bidirectional=False, --no-bidirectional), or a use of whole sequences"
            )
        return OneStep(self).result()

    def composed(self) -> tuple[StepGraph, StepGraph]:
        """All layers and the readout as one step, and the answer from its carry.

        The step reads x `[B, F]`, of a model with tokens the embedded one. Its states are those of
        the layers from bottom to top, then those of the readout; it has no outputs. The inputs of
        the answer are the new states, its output is the answer.

        Raises:
            ValueError: a layer reads backwards, too; the message names it.
        """
        return self._composed

    @cached_property
    def answer(self) -> StepGraph:
        """From what the readout gives, to the answer.

        Its inputs are the outputs that are read of the directions side by side, one input; of a
        readout of the kind scan, the step's new states.
        """
        c = Composer()
        if self.readout.answer is None:
            inputs = [c.input(self.layers[-1].width)]
            read: list[Node] = inputs
        else:
            inputs = [c.input(n.width) for n in self.readout.answer.inputs]
            read = c.inlined(self.readout.answer, inputs, ())[1]
        outputs = c.inlined(self.head, read, ())[1]
        return StepGraph(tuple(inputs), (), (), tuple(outputs))

    # ---- in a file

    def as_json(self) -> dict[str, Any]:
        """The graph as plain values, as a saved model holds it."""
        stages: list[dict[str, Any]] = []
        if self.embed is not None:
            e = self.embed
            stage = {"stage": "embed", "tokens": e.n_tokens, "width": e.width, "table": e.table}
            if e.spelling is not None:
                stage["spelling"] = e.spelling.as_json()
            stages.append(stage)
        for layer in self.layers:
            directions = [
                {"step": d.step.as_json(), "reverse": d.reverse} for d in layer.directions
            ]
            stages.append({"stage": "scan", "name": layer.name, "directions": directions})
        readout: dict[str, Any] = {"kind": self.readout.kind}
        for name in ("step", "answer"):
            part = getattr(self.readout, name)
            if part is not None:
                readout[name] = part.as_json()
        value = {
            "opset": OPSET,
            "stages": stages,
            "readout": readout,
            "head": self.head.as_json(),
        }
        if self.ahead is not None:
            value["ahead"] = {"steps": self.ahead.n_steps, "each": self.ahead.each.as_json()}
        return value

    @staticmethod
    def from_json(value: Any, tensors: Shapes, where: str = "graph") -> ModelGraph:
        """The reverse of `as_json`; see `StepGraph.from_json`.

        Raises:
            ValueError: it is not a graph that this version knows, or reads other tensors.
        """
        if isinstance(value, dict) and type(value.get("opset")) is int and value["opset"] > OPSET:
            raise ValueError(
                f"{where} has opset {value['opset']}, and this version of ostinato knows 1 to "
                f"{OPSET}: install a newer one"
            )
        wanted = {"opset", "stages", "readout", "head"}
        value = entries(value, where, wanted, frozenset({"ahead"}))
        whole(value["opset"], f"{where}: opset", 1, OPSET)
        stages = items(value["stages"], f"{where}: stages", MAX_STAGES)
        embed = None
        if stages and isinstance(stages[0], dict) and stages[0].get("stage") == "embed":
            embed = _embed_from(stages[0], tensors, f"{where}: stages[0]")
            stages = stages[1:]
        layers = tuple(
            _scan_from(stage, tensors, f"{where}: {'layer'} {i}") for i, stage in enumerate(stages)
        )
        readout = _readout_from(value["readout"], tensors, f"{where}: readout")
        head = StepGraph.from_json(value["head"], tensors, f"{where}: head")
        ahead = None
        if "ahead" in value:
            ahead = _ahead_from(value["ahead"], tensors, f"{where}: ahead")
        graph = ModelGraph(embed, layers, readout, head, ahead)
        _check_widths(graph, where)
        return graph


# ---- reading


def _embed_from(value: Any, tensors: Shapes, where: str) -> Embed:
    value = entries(value, where, {"stage", "tokens", "width", "table"}, frozenset({"spelling"}))
    n_tokens = whole(value["tokens"], f"{where}: tokens", 1, 1 << 31)
    width = whole(value["width"], f"{where}: width", 1, 1 << 24)
    table = value["table"]
    if table is None:
        known = width == n_tokens
    else:
        known = tensors.get(text(table, f"{where}: table")) == (n_tokens, width)
    if not known:
        fail(f"{where} has no table of {n_tokens} rows and {width} columns")
    spelling = None
    if "spelling" in value:
        spelling = ModelGraph.from_json(value["spelling"], tensors, f"{where}: spelling")
        inner = spelling.embed
        if inner is None or inner.spelling is not None or spelling.readout.kind == "each":
            fail(f"{where}: spelling is not a graph of one answer to characters")
    return Embed(n_tokens, width, table, spelling)


def _scan_from(value: Any, tensors: Shapes, where: str) -> Scan:
    if isinstance(value, dict) and value.get("stage") != "scan":
        fail(f"{where} is of the kind {str(value.get('stage'))[:60]!r}, which is not known")
    value = entries(value, where, {"stage", "name", "directions"})
    directions = []
    for i, d in enumerate(items(value["directions"], f"{where}: directions", 2)):
        d = entries(d, f"{where}, direction {i}", {"step", "reverse"})
        if type(d["reverse"]) is not bool:
            fail(f"{where}, direction {i}: reverse is neither true nor false")
        step = StepGraph.from_json(d["step"], tensors, f"{where}, direction {i}")
        if len(step.inputs) != 1 or len(step.outputs) != 1 or not step.states:
            fail(f"{where}, direction {i}: wanted a step of one input, one output and a carry")
        directions.append(Direction(step, d["reverse"]))
    if not directions or len({d.step.inputs[0].width for d in directions}) != 1:
        fail(f"{where}: wanted directions that read the same inputs")
    return Scan(text(value["name"], f"{where}: name"), tuple(directions))


def _readout_from(value: Any, tensors: Shapes, where: str) -> ReadoutGraph:
    value = entries(value, where, {"kind"}, frozenset({"step", "answer"}))
    kind = value["kind"]
    if kind not in KINDS:
        fail(f"{where} is of the kind {str(kind)[:60]!r}, which is not known")
    if kind != "scan":
        entries(value, where, {"kind"})
        return ReadoutGraph(kind)
    value = entries(value, where, {"kind", "step", "answer"})
    step, answer = (
        StepGraph.from_json(value[name], tensors, f"{where}: {name}") for name in ("step", "answer")
    )
    if len(step.inputs) != 1 or step.outputs or not step.states:
        fail(f"{where}: wanted a step of one input and a carry")
    if _widths(answer.inputs) != _widths(step.states) or answer.states or len(answer.outputs) != 1:
        fail(f"{where}: wanted an answer from the carry of the step")
    return ReadoutGraph(kind, step, answer)


def _ahead_from(value: Any, tensors: Shapes, where: str) -> Ahead:
    value = entries(value, where, {"steps", "each"})
    n_steps = whole(value["steps"], f"{where}: steps", 1, MAX_AHEAD)
    each = StepGraph.from_json(value["each"], tensors, where)
    if len(each.inputs) != 2 or each.states or len(each.outputs) != 1:
        fail(f"{where}: wanted a map from a vector and what is known of a step")
    return Ahead(n_steps, each)


def _widths(nodes: Sequence[Node]) -> list[int]:
    return [n.width for n in nodes]


def _check_widths(graph: ModelGraph, where: str) -> None:
    if not graph.layers:
        fail(f"{where} has no layers")
    given = graph.n_inputs if graph.embed is None else graph.embed.n_columns
    for layer in graph.layers:
        if layer.n_inputs != given:
            fail(f"{where}: {layer.name} reads {layer.n_inputs} columns; there are {given}")
        given = layer.width
    readout, head = graph.readout, graph.head
    if readout.step is not None and readout.answer is not None:
        if readout.step.inputs[0].width != given:
            fail(f"{where}: the readout does not read the {given} columns of the top layer")
        given = readout.answer.outputs[0].width
    if _widths(head.inputs) != [given] or head.states or len(head.outputs) != 1:
        fail(f"{where}: the head does not read the {given} columns of the readout")
    ahead = graph.ahead
    if ahead and head.outputs[0].width != ahead.n_steps * ahead.each.inputs[0].width:
        fail(f"{where}: the head does not give a vector for each of {ahead.n_steps} steps ahead")
    if ahead and readout.kind == "each":
        fail(f"{where}: a forecaster that answers at each step")


class OneStep:
    """The layers and the readout of a model as one step."""

    def __init__(self, model: ModelGraph):
        self.model = model
        self.c = Composer()
        self.x = self.c.input(model.n_inputs)
        self.states: list[Node] = []
        self.new_states: list[Node] = []

    def result(self) -> tuple[StepGraph, StepGraph]:
        """The step, and the map from its new states to the answer."""
        value = self.x
        for i, layer in enumerate(self.model.layers):
            value = self.inlined(layer.directions[0].step, self.c.joint(value) if i else value)[0]
        readout = self.model.readout
        if readout.step is not None:
            first = len(self.states)
            self.inlined(readout.step, self.c.joint(value))
            read = list(range(first, len(self.states)))
        else:
            read = [self.kept(value)]
        step = StepGraph(
            (self.x,), tuple(self.states), tuple(self.new_states), (), frozenset(self.c.joints)
        )
        return step, self.answer(read)

    def inlined(self, step: StepGraph, x: Node) -> list[Node]:
        """A further step's outputs; its states follow those of the steps before."""
        states = [self.c.state(n.width) for n in step.states]
        new_states, outputs = self.c.inlined(step, [x], states)
        self.states += states
        self.new_states += new_states
        return outputs

    def kept(self, value: Node) -> int:
        """The state that holds a value after the step: an existing one, or a new one."""
        if value not in self.new_states:
            self.states.append(self.c.state(value.width))
            self.new_states.append(self.c.joint(value))
            return len(self.states) - 1
        return self.new_states.index(value)

    def answer(self, read: list[int]) -> StepGraph:
        """The model's answer from all states, of which it reads some."""
        c = Composer()
        inputs = [c.input(n.width) for n in self.states]
        outputs = c.inlined(self.model.answer, [inputs[i] for i in read], ())[1]
        return StepGraph(tuple(inputs), (), (), tuple(outputs))
