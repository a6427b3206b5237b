"""Recurrent networks with a head for a task, as PyTorch modules."""

from ostinato.models.classifier import ClassifierNet
from ostinato.models.ensemble import ClassifierEnsemble
from ostinato.models.forecaster import ForecasterNet
from ostinato.models.language import LanguageNet
from ostinato.models.stack import Stack
from ostinato.models.tagger import TaggerNet

__all__ = [
    "ClassifierEnsemble",
    "ClassifierNet",
    "ForecasterNet",
    "LanguageNet",
    "Stack",
    "TaggerNet",
]
