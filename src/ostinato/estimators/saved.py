"""`load`: any model that an estimator saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ostinato.estimators import classifier, forecaster, language, tagger
from ostinato.runtime.saved import model_in
from ostinato.training import (
    fitted,
    fitted_forecaster,
    fitted_language,
    fitted_tagger,
    saved_model,
)

_LOADERS: dict[str, Any] = {
    fitted.KIND: classifier.load,
    fitted_tagger.KIND: tagger.load,
    fitted_forecaster.KIND: forecaster.load,
    fitted_language.KIND: language.load,
}


def load(path: str | Path) -> Any:
    """Load a model that `save` wrote, of any estimator; it predicts the same to the last bit.

    Args:
        path: its directory, or a run of the command line, which has one.

    Returns:
        A `SequenceClassifier`, `SequenceTagger`, `SequenceForecaster` or `LanguageModel`.

    Raises:
        ValueError: a file is missing, damaged or foreign, or the two do not belong together.

    Example:
        >>> import numpy as np, tempfile
        >>> from ostinato import SequenceClassifier
        >>> X, y = np.random.default_rng(0).normal(size=(20, 3, 2)), np.arange(20) % 2
        >>> model = SequenceClassifier(hidden_size=4, iterations=2).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     model.save(f"{directory}/model")
        ...     again = load(f"{directory}/model")
        >>> bool((again.predict_proba(X) == model.predict_proba(X)).all())
        True
    """
    path = model_in(Path(path))
    kind = saved_model.kind_of(path)
    if kind not in _LOADERS:
        raise ValueError(
            f"{path / saved_model.CONFIG} has the kind {kind!r}; wanted one of "
            f"{', '.join(_LOADERS)}, as save() writes them"
        )
    return _LOADERS[kind](path)
