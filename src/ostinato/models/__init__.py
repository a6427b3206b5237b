"""Recurrent networks with a head for a task, as PyTorch modules."""

from ostinato.models.classifier import ClassifierNet

__all__ = ["ClassifierNet"]
