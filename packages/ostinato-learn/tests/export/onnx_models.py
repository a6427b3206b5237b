"""Models as `ostinato_learn.runtime.load` gives them, of networks with random weights."""

from __future__ import annotations

import json

import numpy as np
import torch

from ostinato_learn.data import Examples, Preparation
from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.series.windows import Columns, SeriesWindows
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.models import ClassifierEnsemble, ClassifierNet, LanguageNet, TaggerNet
from ostinato_learn.models.saved_graph import describe
from ostinato_learn.runtime.model import model_of
from ostinato_learn.saved.read import Saved
from ostinato_learn.tasks.forecast.net import ForecasterNet


def noisy(net, seed=0):
    """The network with biases, and queries of an attention, that are not zero."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=random) * 0.3)
    return net.eval()


def seeded(make):
    """What `make` makes, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def loaded(kind, net, fitted, several=False, made_with=None):
    graph, folded = describe(net, several=several)
    tensors = {k: t.detach().numpy() for k, t in {**net.state_dict(), **folded}.items()}
    read = json.loads(json.dumps(fitted))  # as from a file
    saved = Saved(kind, graph, tensors, read, "f" * 64, made_with or {}, {}, 0)
    return model_of(saved, "made here")


def classifier(F=3, C=4, preparation=None, several=False, members=1, size=6, **config):
    made = {"hidden_size": size, **config}
    n_inputs = F if preparation is None else len(preparation.columns)
    nets = [
        noisy(seeded(lambda: ClassifierNet(n_inputs, C, **made)), seed) for seed in range(members)
    ]
    net = nets[0] if members == 1 else ClassifierEnsemble(nets).eval()
    fitted = {
        "classes": LabelEncoder(np.array([f"class {i}" for i in range(C)])).as_json(),
        "feature_names": None,
        "preparation": None if preparation is None else preparation.as_json(),
        "multilabel": several,
        "vocabulary": None,
        "early": None,
    }
    return loaded("sequence_classifier", net, fitted, several)


def tagger(F=3, C=4, scale=True, **config):
    net = noisy(seeded(lambda: TaggerNet(n_features=F, n_classes=C, hidden_size=6, **config)))
    random = np.random.default_rng(0)
    fitted = {
        "classes": LabelEncoder(np.arange(C)).as_json(),
        "feature_names": None,
        "preparation": None,
        "scale": {
            "mean": random.normal(size=F).tolist(),
            "deviation": random.uniform(0.5, 2, F).tolist(),
        }
        if scale
        else None,
        "scheme": None,
        "vocabulary": None,
    }
    return loaded("sequence_tagger", net, fitted)


def language_model(text="abcabd", **config):
    vocabulary = Vocabulary.fit([text], "character")
    net = noisy(seeded(lambda: LanguageNet(len(vocabulary), hidden_size=6, **config)))
    return loaded("language_model", net, {"vocabulary": vocabulary.as_json()})


def preparation(missing, words=True, far=1.0):
    """Of a number, a word and a small number; their means are `far` times as large."""
    random = np.random.default_rng(1)
    X = random.normal(size=(5, 9, 3)) * [2, 0, 1e-3] + np.array([7, 0, 4e-3]) * far
    X[..., 1] = random.integers(0, 3, X.shape[:2])
    categories = {"colour": ("red", "blue", "green")} if words else {}
    features = ("height", "colour", "level")
    examples = Examples(X.astype(np.float32), features=features, categories=categories)
    return Preparation.fit(examples, missing=missing)


def forecaster(
    P=0,
    K=0,
    S=0,
    horizon=3,
    context=12,
    season=4,
    scaling="std",
    nonnegative=False,
    whole=False,
    **config,
):
    """With P past inputs, K known in advance, and S that do not change."""
    windows = SeriesWindows(
        context, horizon, scaling, season, *(columns(n, seed) for seed, n in enumerate((P, K, S)))
    )
    sizes = {"n_past": P, "n_future": K, "n_static": S, "n_lags": windows.n_lags}
    net = noisy(seeded(lambda: ForecasterNet(horizon, **sizes, hidden_size=6, **config)))
    fitted = {name: getattr(windows, name) for name in ("context", "scaling", "season")}
    fitted |= {name: getattr(windows, name).as_json() for name in ("past", "future", "static")}
    fitted |= {"preparation": None, "names": {}, "nonnegative": nonnegative, "whole": whole}
    return loaded("sequence_forecaster", net, fitted, made_with=net.config)


def columns(n, seed):
    random = np.random.default_rng(seed)
    return Columns(tuple(random.normal(size=n)), tuple(random.uniform(0.5, 2, n)))
