"""A model that the command line trained knows its columns in Python, in any order."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from task_files import QUICK

import ostinato_learn as package
from ostinato_learn import SequenceClassifier, SequenceTagger, runtime

pd = pytest.importorskip("pandas")


def walks(n: int = 40, steps: int = 6) -> pd.DataFrame:
    """Steps of n sequences; only x tells the label, and y is far from it."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(n):
        for t in range(steps):
            x = generator.normal() + (2 if i % 2 else -2)
            rows.append((f"s{i}", t, x, 5 * generator.normal(), "up" if i % 2 else "down"))
    return pd.DataFrame(rows, columns=["id", "t", "x", "y", "kind"])


def shops(n: int = 4, steps: int = 40) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    rows = [
        (f"s{i}", t, *generator.normal(size=4), i, 10 - i) for i in range(n) for t in range(steps)
    ]
    names = ["id", "t", "sold", "rain", "price", "open", "size", "age"]
    return pd.DataFrame(rows, columns=names)


def sequences(frame: pd.DataFrame, columns: list[str]) -> list[pd.DataFrame]:
    return [part[columns] for _, part in frame.groupby("id", sort=False)]


@pytest.fixture(params=["ostinato_learn.load", "ostinato_learn.runtime.load"])
def load(request):
    return package.load if request.param == "ostinato_learn.load" else runtime.load


@pytest.fixture
def trained(ostinato, tmp_path):
    """The directory of a model that the command line trains with a frame and flags."""

    def train(frame, *flags):
        file = tmp_path / "data.csv"
        frame.to_csv(file, index=False)
        done = ostinato("train", file, *flags, *QUICK, "-o", tmp_path / "run", "-q")
        assert done.code == 0, done.err
        return tmp_path / "run" / "model"

    return train


def polars(frame):
    return pytest.importorskip("polars").DataFrame(frame.to_dict("list"))


def arrow(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)


KINDS = {"pandas": lambda frame: frame, "polars": polars, "pyarrow": arrow}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [("--features", "x,y"), ()], ids=["features", "found"])
def test_classify_frames_in_any_order(trained, load, kind, flags):
    frame = walks()
    model = load(trained(frame, "--classify", "kind", "--id", "id", "--time", "t", *flags))
    right = model.predict_proba([part.to_numpy() for part in sequences(frame, ["x", "y"])])
    swapped = [KINDS[kind](part) for part in sequences(frame, ["y", "x"])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model.predict_proba(swapped), right)
        as_objects = np.empty(len(swapped), object)
        for i, part in enumerate(swapped):
            as_objects[i] = part
        np.testing.assert_array_equal(model.predict_proba(as_objects), right)
    with pytest.raises(ValueError, match=r"(?s)X\[0\].*now missing:\n- x\n"):
        model.predict([KINDS[kind](part[["y"]].assign(z=0.0)) for part in sequences(frame, ["y"])])
    with pytest.raises(ValueError, match="unseen at fit time:\n- t"):
        model.predict([KINDS[kind](part) for part in sequences(frame, ["t", "x", "y"])])
    with pytest.raises(ValueError, match=r"one data frame.*groupby"):
        model.predict(KINDS[kind](frame[["x", "y"]]))


def test_classify_rows_of_a_wide_table_in_any_order(trained, load):
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(40, 12)), columns=[f"s{i}" for i in range(12)])
    label = np.where(frame["s11"] > 0, "up", "down")
    model = load(trained(frame.assign(kind=label), "--classify", "kind", "--shape", "wide"))
    right = model.predict_proba(frame.to_numpy())
    as_texts_are_sorted = frame[sorted(frame.columns)]
    assert list(as_texts_are_sorted.columns) != list(frame.columns)
    np.testing.assert_array_equal(model.predict_proba(as_texts_are_sorted), right)
    with pytest.raises(ValueError, match="no column 's3'"):
        model.predict(frame.drop(columns="s3"))


def test_tag_frames_in_any_order(trained, load):
    frame = walks()
    frame["kind"] = np.where(frame["x"] > 0, "up", "down")
    model = load(trained(frame, "--tag", "kind", "--id", "id", "--time", "t"))
    right = model.predict_proba([part.to_numpy() for part in sequences(frame, ["x", "y"])])
    swapped = sequences(frame, ["y", "x"])
    for came, wanted in zip(model.predict_proba(swapped), right, strict=True):
        np.testing.assert_array_equal(came, wanted)
    np.testing.assert_array_equal(model.predict_proba(swapped[0]), right[0])  # a single sequence


def test_forecast_frames_in_any_order(trained, load):
    frame = shops()
    model = load(
        trained(
            frame, "--forecast", "sold", "--horizon", 2, "--id", "id", "--time", "t",
            "--features", "rain,price,open", "--known", "price,open", "--static", "size,age",
        )
    )  # fmt: skip
    past, known = ["sold", "rain"], ["price", "open"]
    X = [part.iloc[:-2] for part in sequences(frame, past)]
    future = sequences(frame, known)
    static = frame.groupby("id", sort=False)[["size", "age"]].first()
    right = model.predict(
        [x.to_numpy() for x in X],
        future=[f.to_numpy() for f in future],
        static=static.to_numpy(),
    )
    came = model.predict(
        [x[past[::-1]] for x in X],
        future=[f[known[::-1]] for f in future],
        static=static[["age", "size"]],
    )
    np.testing.assert_array_equal(came, right)
    with pytest.raises(ValueError, match=r"(?s)of future.*now missing:\n- price"):
        model.predict(X, future=[f[["open", "open"]] for f in future], static=static)


def test_rows_of_a_stream_by_their_names(trained):
    frame = walks()
    one_way = ("--set", "model.bidirectional=false")
    flags = ("--classify", "kind", "--id", "id", "--time", "t", *one_way)
    model = runtime.load(trained(frame, *flags))
    (part, *_) = sequences(frame, ["x", "y"])
    stream = model.stream()
    right = [stream.push(row).proba for row in part.to_numpy(np.float32)]
    swapped = part[["y", "x"]]
    rows = {
        "dictionaries": swapped.to_dict("records"),
        "series": [row for _, row in swapped.iterrows()],
        "tuples": list(swapped.itertuples(index=False)),
    }
    for kind, each in rows.items():
        stream, pool = model.stream(), model.pool(capacity=1)
        for row, wanted in zip(each, right, strict=True):
            np.testing.assert_array_equal(stream.push(row).proba, wanted, err_msg=kind)
            np.testing.assert_array_equal(pool.push({"a": row})["a"].proba, wanted, err_msg=kind)
    stream = model.stream()
    np.testing.assert_array_equal(stream.push(swapped).proba, right[-1])
    with pytest.raises(ValueError, match="now missing:\n- x"):
        stream.push({"y": 1.0, "z": 2.0})


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceTagger])
def test_models_of_frames_that_standardize_know_their_columns(kind, tmp_path):
    frame = walks()
    frames = sequences(frame, ["x", "y"])
    y = [np.where(f["x"] > 0, "up", "down") for f in frames]
    y = y if kind is SequenceTagger else [each[0] for each in y]
    model = kind(hidden_size=4, iterations=2, standardize=True, random_state=0).fit(frames, y)
    model.save(tmp_path / "model")
    for each in (model, package.load(tmp_path / "model"), runtime.load(tmp_path / "model")):
        each.predict(frames)
        with pytest.raises(ValueError, match="feature names should match"):
            each.predict(sequences(frame, ["y", "x"]))
    with pytest.raises(ValueError, match="feature names should match"):
        model.fit(frames, y, validation=(sequences(frame, ["y", "x"]), y))


def test_a_fit_that_goes_on_from_a_table_knows_its_columns(trained):
    frame = walks()
    model = package.load(trained(frame, "--classify", "kind", "--id", "id", "--time", "t"))
    y = frame.groupby("id", sort=False)["kind"].first()
    model.set_params(warm_start=True, iterations=1, learning_rate=1e-30, optimizer="sgd")
    right = model.predict_proba(sequences(frame, ["x", "y"]))
    swapped = sequences(frame, ["y", "x"])
    model.fit(swapped, y, validation=(swapped, y))
    assert model.history_.reports[-1]["validation_accuracy"] == (
        np.mean(model.classes_[right.argmax(1)] == y)
    )


def test_a_model_of_frames_reads_tables_by_their_names(ostinato, tmp_path):
    frame = walks()
    y = frame.groupby("id", sort=False)["kind"].first()
    model = SequenceClassifier(hidden_size=4, iterations=30, bidirectional=False)
    model.fit(sequences(frame, ["x", "y"]), y).save(tmp_path / "model")
    wanted = model.predict(sequences(frame, ["x", "y"])).tolist()
    for columns in (["x", "y"], ["y", "x"]):
        file = tmp_path / "new.csv"
        frame[["id", "t", *columns]].to_csv(file, index=False)
        done = ostinato("predict", tmp_path / "model", file)
        assert done.code == 0, done.err
        came = [line.split(",")[1] for line in done.out.splitlines()[1:]]
        assert came == wanted, columns
        streamed = ostinato("stream", tmp_path / "model", file, "--key", "id")
        assert streamed.code == 0, streamed.err
