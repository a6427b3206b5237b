"""Recurrent networks with a head for a task, as PyTorch modules.

Those of the tasks are in their folders; this names them together.

    stack.py, body.py   recurrent layers, one over the other; initialize.py: how weights are drawn
    inputs.py           batches of sequences as tensors, words as vectors
    readout.py          from the outputs of all steps to what a head reads
    build.py            a network from a seed
    saved_graph.py      a network as a graph that runs without torch; graph_parts.py
    module_network.py   a network that gives a model its outputs
    saved_model.py      saved and loaded; tensor_file.py
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ostinato_learn.models.stack import Stack

_OF_TASKS = {
    "ClassifierEnsemble": "classify.net",
    "ClassifierNet": "classify.net",
    "ForecasterNet": "forecast.net",
    "LanguageNet": "language.net",
    "TaggerNet": "tag.net",
}
__all__ = [
    "ClassifierEnsemble",
    "ClassifierNet",
    "ForecasterNet",
    "LanguageNet",
    "Stack",
    "TaggerNet",
]

if TYPE_CHECKING:
    from ostinato_learn.tasks.classify.net import ClassifierEnsemble, ClassifierNet
    from ostinato_learn.tasks.forecast.net import ForecasterNet
    from ostinato_learn.tasks.language.net import LanguageNet
    from ostinato_learn.tasks.tag.net import TaggerNet


def __getattr__(name: str) -> Any:
    if name not in _OF_TASKS:
        raise AttributeError(f"module 'ostinato_learn.models' has no attribute {name!r}")
    return getattr(import_module(f"ostinato_learn.tasks.{_OF_TASKS[name]}"), name)
