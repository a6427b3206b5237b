"""Estimators in scikit-learn's manner, and `load` for what they save.

All pass scikit-learn's `check_estimator`, except these checks, which take X for a table of
features:

    SequenceClassifier   check_n_features_in, check_n_features_in_after_fitting and
                         check_classifiers_train: a 2-D X is [examples, steps], so that another
                         number of columns is another length;
                         check_sample_weight_equivalence_on_dense_data: batches are drawn at random
    SequenceTagger       check_methods_sample_order_invariance, check_methods_subset_invariance: the
                         rows of a 2-D X are the steps of one sequence, and their order matters
    SequenceForecaster   check_n_features_in, check_n_features_in_after_fitting: the columns of X
                         are steps of a series; check_fit1d, check_fit2d_predict1d: an array [T] is
                         one series; check_fit2d_1feature: one step has nothing to forecast
    LanguageModel        none; scikit-learn has one check for an estimator of texts
"""

from ostinato._extras import needs

with needs("torch", "torch", "sklearn"):
    import torch  # noqa: F401  # first: scikit-learn's own error would not name the extra

    from ostinato.estimators.classifier import SequenceClassifier
    from ostinato.estimators.forecaster import SequenceForecaster
    from ostinato.estimators.language import LanguageModel
    from ostinato.estimators.saved import load
    from ostinato.estimators.tagger import SequenceTagger

__all__ = ["LanguageModel", "SequenceClassifier", "SequenceForecaster", "SequenceTagger", "load"]
