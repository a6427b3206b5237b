"""Estimators in scikit-learn's manner, and `load` for what they save."""

from ostinato._extras import needs

with needs("torch", "torch", "sklearn"):
    import torch  # noqa: F401  # before scikit-learn, whose own error would say less

    from ostinato.estimators.classifier import SequenceClassifier
    from ostinato.estimators.forecaster import SequenceForecaster
    from ostinato.estimators.language import LanguageModel
    from ostinato.estimators.saved import load
    from ostinato.estimators.tagger import SequenceTagger

__all__ = ["LanguageModel", "SequenceClassifier", "SequenceForecaster", "SequenceTagger", "load"]
