"""`Network`: a model's graph with its tensors, run on batches of sequences.

A model gets outputs from its network, and turns them into answers. There are two kinds of network:
this one, and `models.module_network.ModuleNetwork`, a PyTorch module that runs as such a graph if
it can be recorded. `runtime.model.AnyNetwork` names the methods of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.internal import native
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import CodedWords
from ostinato_learn.runtime.model_graph import ModelGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.runtime.values import Array

if TYPE_CHECKING:
    from ostinato_learn.runtime.programs import StepProgram

Inputs = np.ndarray | Ragged | CodedWords  # sequences as a network reads them


class Network:
    """A model's graph; its programs are made at their first use.

    Args:
        graph: the model.
        tensors: float32 arrays by name, which are not copied.

    Two threads may run one network at the same time.
    """

    def __init__(self, graph: ModelGraph, tensors: Mapping[str, Array]):
        self.graph, self.tensors = graph, tensors
        self._programs: dict[tuple[StepGraph, bool, bool], StepProgram] = {}

    @property
    def n_inputs(self) -> int:
        """The number of values that a step reads."""
        return self.graph.n_inputs

    @property
    def reads_words(self) -> bool:
        """Whether a step is a word or a token."""
        return self.graph.embed is not None

    @cached_property
    def widest(self) -> int:
        """The number of values of one step, in the inputs or in a layer's outputs."""
        return max(self.graph.n_inputs, *(layer.width for layer in self.graph.layers))

    def rows(self, sequences: Inputs, chosen: Array | slice) -> Array:
        """The outputs for some sequences, `[B, K]`, or `[B, T, K]` where every step has one."""
        return self.answers(*self.batch(sequences, chosen))

    def batch(self, sequences: Inputs, chosen: Array | slice) -> tuple[Array, Array | None]:
        """Some sequences `[B, T, F]`, zero beyond their lengths `[B]`; None: all have T steps."""
        if isinstance(sequences, np.ndarray):
            return sequences[chosen], None  # a view, if `chosen` is a slice
        assert not isinstance(chosen, slice)
        if isinstance(sequences, CodedWords):
            words = sequences.arrays(chosen)
            vectors = self.vectors(words.words, words.characters, words.n_characters)
            return vectors[words.places], words.lengths
        return sequences[chosen].padded()

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(self)

    def read(self, tokens: Array, carry: Array | None, each: bool) -> tuple[Array, Array]:
        """The outputs after tokens that continue from a carry, for a network of one direction.

        Args:
            tokens: `[B, T]`, their numbers.
            carry: the states after the tokens before, whose first B rows continue; None: there are
                no tokens before.
            each: whether after each token.

        Returns:
            `[B, 1, K]` or `[B, T, K]` float32, and the states.
        """
        chunks = self._chunks
        if carry is None:
            carry = np.zeros((len(tokens), chunks.n_carry), np.float32)
        return chunks.answers(self.vectors(tokens.ravel()), carry[: len(tokens)], each)

    def answers(self, x: Array, lengths: Array | None = None) -> Array:
        """The output of the head: `[B, K]`, or `[B, T, K]` where the readout is `each`.

        Args:
            x: `[B, T, F]` float32; of a model with tokens their vectors, or if they are not spelt
                their numbers `[B, T]`.
            lengths: `[B]`, steps of each row, 1…T; by default T. Answers beyond them are undefined.
        """
        of_rows = None if lengths is None else [int(n) for n in lengths]
        if x.ndim == 2:
            x = self._table[x]
        if len(x) == 1 and self._stepwise is not None:
            return self._alone(x, lengths)
        if x.strides[2] != x.itemsize:
            x = np.ascontiguousarray(x)  # programs read rows that are dense
        values = np.swapaxes(x, 0, 1)  # [T, B, F]
        *below, top = self.graph.layers
        for layer in below:
            values = self._played(layer, values, of_rows)
        readout = self.graph.readout
        if readout.kind == "last":
            return self._map(self.graph.answer, [self._last(top, values, of_rows)])
        values = self._played(top, values, of_rows)
        n_steps, n_rows = values.shape[:2]
        if readout.kind == "each":
            answers = self._map(self.graph.answer, [values.reshape(n_steps * n_rows, -1)])
            return np.swapaxes(answers.reshape(n_steps, n_rows, -1), 0, 1)
        assert readout.step is not None
        _, carry = self._program(readout.step, False, n_rows).play([values], of_rows)
        return self._map(self.graph.answer, carry)

    @cached_property
    def _stepwise(self) -> Any:
        """The model as streams run it; None if single sequences are faster as a batch."""
        from ostinato_learn.runtime.programs import MOST_STEPWISE, bound

        if self.graph.why_not_streamable():
            return None
        step, answer = self.graph.composed()
        if step.multiplies + answer.multiplies > MOST_STEPWISE:
            return None
        n_carry = sum(n.width for n in step.states)
        return native.stream_model(
            step.inputs[0].width,
            bound(step, self.tensors),
            bound(answer, self.tensors),
            [0.0] * n_carry,
            [],
            [],
            [],
            [],
            False,
        )

    def _alone(self, x: Array, lengths: Array | None) -> Array:
        """The answer to a single sequence, step by step."""
        n_steps = x.shape[1] if lengths is None else int(lengths[0])
        each = self.graph.readout.kind == "each"
        rows = np.ascontiguousarray(x[0, :n_steps], np.float32)
        answers = np.zeros((x.shape[1] if each else 1, self.graph.n_outputs), np.float32)
        state = native.stream_state(self._stepwise)
        state.push_rows(n_steps, rows, answers[:n_steps], each)
        return answers[None] if each else answers

    def forecasts(self, x: Array, known: Array) -> Array:
        """A forecaster's answers for the steps ahead, `[B, h, K]`.

        Args:
            x: `[B, T, F]` float32.
            known: `[B, h, n_known]` float32, what is known of the steps ahead.
        """
        ahead = self.graph.ahead
        assert ahead is not None
        n_rows = len(x) * ahead.n_steps
        vectors = self.answers(x).reshape(n_rows, -1)
        answers = self._map(ahead.each, [vectors, known.reshape(n_rows, -1)])
        return answers.reshape(len(x), ahead.n_steps, -1)

    def _played(self, layer: Scan, values: Array, lengths: list[int] | None) -> Array:
        """A layer's outputs `[T, B, width]`, those of its directions side by side."""
        found = []
        for direction in layer.directions:
            program = self._program(direction.step, direction.reverse, values.shape[1])
            outputs, _ = program.play([values], lengths)
            found.append(outputs[0])
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)

    def _last(self, layer: Scan, values: Array, lengths: list[int] | None) -> Array:
        """A layer's outputs `[B, width]` at the step that each direction plays last."""
        found = []
        for direction in layer.directions:
            step, place = direction.ending
            program = self._program(step, direction.reverse, values.shape[1])
            _, carry = program.play([values], lengths)
            found.append(carry[place])
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _map(self, graph: StepGraph, inputs: list[Array]) -> Array:
        """A map of rows `[N, width]`."""
        inputs = [np.ascontiguousarray(value)[None] for value in inputs]
        outputs, _ = self._program(graph, False, inputs[0].shape[1]).play(inputs)
        return outputs[0][0]

    def _program(self, step: StepGraph, reverse: bool, n_rows: int) -> StepProgram:
        # Imported here: the lowering would be a third of the imports for reading a model.
        from ostinato_learn.runtime.programs import HOIST_BELOW, StepProgram

        hoist = n_rows < HOIST_BELOW
        made = self._programs.get((step, reverse, hoist))
        if made is None:
            made = StepProgram(step, self.tensors, reverse=reverse, hoist=hoist)
            self._programs[step, reverse, hoist] = made
        return made

    @cached_property
    def _table(self) -> Array:
        """Rows of tokens, `[V, E]`."""
        embed = self.graph.embed
        assert embed is not None
        if embed.table is None:
            return np.eye(embed.n_tokens, dtype=np.float32)
        return self.tensors[embed.table]

    @cached_property
    def _speller(self) -> Network:
        assert self.graph.embed is not None and self.graph.embed.spelling is not None
        return Network(self.graph.embed.spelling, self.tensors)

    def vectors(
        self, tokens: Array, characters: Array | None = None, n_characters: Array | None = None
    ) -> Array:
        """The vectors of tokens, `[U, F]`.

        Args:
            tokens: `[U]`, their numbers.
            characters, n_characters: `[U, L]` and `[U]`, the numbers of their characters and how
                many they are, if tokens are spelt.
        """
        rows = self._table[tokens]
        if self.graph.embed is None or self.graph.embed.spelling is None:
            return rows
        assert characters is not None
        spelt = self._speller.answers(characters, n_characters)
        return np.concatenate([rows, spelt], axis=1)


class Chunks:
    """Several steps of streams by the batch engine, which computes the products of x in advance."""

    def __init__(self, network: Network):
        self.network = network
        graph = network.graph
        self.steps = [layer.directions[0].step for layer in graph.layers]
        self.readout: StepGraph | None = None
        if graph.readout.step is not None:
            self.readout = replace(graph.readout.step, outputs=graph.readout.step.new_states)
            self.steps.append(self.readout)
        widths = [n.width for step in self.steps for n in step.states]
        self.keeps_output = len(widths) < len(graph.composed()[0].states)
        self.n_carry = sum(n.width for n in graph.composed()[0].states)
        self._ends = np.cumsum(widths)

    def answers(self, rows: Array, carry: Array, each: bool) -> tuple[Array, Array]:
        """The answers to the last step, `[B, 1, K]`, or to each, `[B, T, K]`; and the carry.

        Args:
            rows: `[B · T, F]` float32, as the network reads them, row by row.
            carry: `[B, n_carry]`, all states of each row.
        """
        B = len(carry)
        states = np.split(carry, self._ends, axis=1)[: len(self._ends)]
        values = np.swapaxes(rows.reshape(B, len(rows) // B, -1), 0, 1)  # [T, B, F]
        outputs: list[Array] = [values]
        new: list[Array] = []
        for step in self.steps:
            own = [np.ascontiguousarray(s) for s in states[: len(step.states)]]
            del states[: len(step.states)]
            program = self.network._program(step, False, B)
            outputs, finals = program.play([outputs[0]], None, own)
            new += finals
        if self.keeps_output:
            new.append(outputs[0][-1])
        read = [(y if each else y[-1:]).reshape(-1, y.shape[2]) for y in outputs]
        answers = self.network._map(self.network.graph.answer, read)
        answers = np.swapaxes(answers.reshape(-1, B, answers.shape[1]), 0, 1)
        return answers, np.concatenate(new, axis=1).astype(np.float32, copy=False)
