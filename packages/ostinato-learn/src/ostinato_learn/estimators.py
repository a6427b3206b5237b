"""Estimators in scikit-learn's manner, and `load` for what they save.

All pass scikit-learn's `check_estimator`, except these checks, which take X for a table of
features:

    SequenceClassifier   check_n_features_in, check_n_features_in_after_fitting and
                         check_classifiers_train: a 2-D X is [examples, steps], so that another
                         number of columns is another length;
                         check_sample_weight_equivalence_on_dense_data: batches are drawn at random
    SequenceRegressor    as SequenceClassifier
    SequenceTagger       check_methods_sample_order_invariance, check_methods_subset_invariance: the
                         rows of a 2-D X are the steps of one sequence, and their order matters
    SequenceForecaster   check_n_features_in, check_n_features_in_after_fitting: the columns of X
                         are steps of a series; check_fit1d, check_fit2d_predict1d: an array [T] is
                         one series; check_fit2d_1feature: one step has nothing to forecast
    LanguageModel        none; scikit-learn has one check for an estimator of texts
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ostinato.internal import needs
from ostinato_learn import tasks
from ostinato_learn.saved.read import model_in

with needs("ostinato-learn[torch]", "torch", "sklearn"):
    import torch  # noqa: F401  # first: scikit-learn's own error would not name the extra

    from ostinato_learn.models import saved_model
    from ostinato_learn.tasks.classify.estimator import SequenceClassifier
    from ostinato_learn.tasks.forecast.estimator import SequenceForecaster
    from ostinato_learn.tasks.language.estimator import LanguageModel
    from ostinato_learn.tasks.regress.estimator import SequenceRegressor
    from ostinato_learn.tasks.tag.estimator import SequenceTagger

__all__ = [
    "LanguageModel",
    "SequenceClassifier",
    "SequenceForecaster",
    "SequenceRegressor",
    "SequenceTagger",
    "load",
]


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
        >>> from ostinato_learn import SequenceClassifier
        >>> X, y = np.random.default_rng(0).normal(size=(20, 3, 2)), np.arange(20) % 2
        >>> model = SequenceClassifier(hidden_size=4, iterations=2).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     model.save(f"{directory}/model")
        ...     again = load(f"{directory}/model")
        >>> bool((again.predict_proba(X) == model.predict_proba(X)).all())
        True
    """
    path = model_in(Path(path))
    model, saved = saved_model.loaded(path)
    return tasks.named(model.task).module("estimator").ESTIMATOR.loaded(model, saved, path)
