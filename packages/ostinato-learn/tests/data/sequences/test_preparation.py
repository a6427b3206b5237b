"""Preparation against plain loops in float64; what a model remembers of its columns."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ostinato_learn.data import Examples, Preparation, Ragged, Roles, read_examples
from ostinato_learn.data.sequences.moments import Moments
from ostinato_learn.data.text.words import Words

NAN = math.nan
X = Ragged(
    np.array([[1, 10], [NAN, 20], [3, NAN], [NAN, NAN], [8, 50]], np.float32), np.array([0, 3, 5])
)
GIVEN = Examples(X, features=("a", "b"))


def loop(examples, missing, standardize=True):
    """The numbers of each feature by the definition, step for step, in float64."""
    columns = []
    for f in range(len(examples.features)):
        present = [float(v) for v in examples.values[:, f] if not math.isnan(v)]
        mean = sum(present) / len(present)
        scale = math.sqrt(sum((v - mean) ** 2 for v in present) / len(present))
        mean, scale, fill = (mean, scale, mean) if standardize else (0.0, 1.0, mean)
        column, absent = [], []
        for sequence in examples.X:
            last = NAN
            for value in sequence[:, f].tolist():
                absent.append(float(math.isnan(value)))
                last = last if math.isnan(value) else value
                value = last if missing == "forward" else value
                if math.isnan(value):
                    value = mean if missing == "mask" else fill
                column.append((value - mean) / scale)
        columns += [column, absent] if missing == "mask" else [column]
    return np.array(columns).T


@pytest.mark.parametrize("missing", ["mask", "fill", "forward"])
@pytest.mark.parametrize("standardize", [True, False])
def test_numbers(missing, standardize):
    preparation = Preparation.fit(GIVEN, missing=missing, standardize=standardize)
    found = preparation.apply(GIVEN)
    assert isinstance(found, Ragged) and found.offsets.tolist() == [0, 3, 5]
    # float64 throughout, one rounding to float32 at the end: half a unit in the last place.
    np.testing.assert_allclose(found.values, loop(GIVEN, missing, standardize), rtol=2**-23, atol=0)
    assert len(preparation.columns) == found.values.shape[1]


@pytest.mark.parametrize("missing", ["mask", "fill", "forward", "zero"])
def test_sequences_prepared_some_at_a_time_have_the_same_bits(missing, monkeypatch):
    draws = np.random.default_rng(0)
    values = draws.integers(0, 2, (300, 3)).astype(np.float32)
    values[draws.random(values.shape) < 0.4] = NAN
    sequences = Ragged(values, np.array([0, *range(1, 300, 5), 300, 300]))
    given = Examples(sequences, features=("a", "b", "c"), categories={"c": ("u", "v")})
    found = []
    for piece in (1 << 18, 75, 1):  # all sequences, five, one
        monkeypatch.setattr("ostinato_learn.data.sequences.preparation.PIECE", piece)
        made = Preparation.fit(given, missing=missing)
        found.append((made, made.apply(given).values.tobytes()))
    assert found[0] == found[1] == found[2]


def test_values_that_stay_as_they_are_are_not_copied():
    steps = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    given = Examples(steps, features=("a", "b"))
    for missing in ("error", "fill", "forward"):
        made = Preparation.fit(given, missing=missing, standardize=False)
        found = made.apply(given)
        assert np.shares_memory(found, steps) and (found == steps).all()
    turned = made.apply(Examples(steps[..., ::-1], features=("b", "a")))
    assert turned.tolist() == steps.tolist()
    lacking = steps.copy()
    lacking[0, 1, 0] = NAN
    assert made.apply(replace(given, X=lacking))[0, 1].tolist() == [0, 3]
    assert math.isnan(lacking[0, 1, 0])
    lacking[0, 1, 0] = math.inf
    with pytest.raises(ValueError, match="step 1, feature 0: the value is too far"):
        made.apply(replace(given, X=lacking))


def test_missing_values_are_an_error_unless_asked_for():
    with pytest.raises(ValueError, match=r"example 0, step 1, feature 0: the value is missing \(2"):
        Preparation.fit(GIVEN)
    whole = GIVEN.select([0])
    whole = replace(whole, X=np.nan_to_num(np.array(list(whole.X))))
    preparation = Preparation.fit(whole)
    with pytest.raises(ValueError, match="example 0, step 1, feature 0: the value is missing"):
        preparation.apply(GIVEN)


@pytest.mark.parametrize("missing", ["mask", "fill", "forward"])
def test_only_the_training_part_counts(missing):
    """Neither another example, nor one beside, changes how an example is prepared."""
    train, other = GIVEN.select([0]), GIVEN.select([1])
    preparation = Preparation.fit(train, missing=missing)
    assert [f.mean for f in preparation.features] == [2, 15]
    together = preparation.apply(GIVEN).values[3:]
    assert preparation.apply(other).values.tobytes() == together.tobytes()


def test_a_feature_that_never_changes_is_centred():
    constant = Examples(np.full((3, 4, 1), 0.1, np.float32), features=("a",))
    preparation = Preparation.fit(constant)
    assert preparation.features[0].scale == 1.0
    assert not preparation.apply(constant).any()
    # In float64 the mean of three times 0.1 is not 0.1.
    statics = Preparation.fit(replace(constant, statics={"b": np.full(3, 0.1)})).statics
    assert statics[0].scale == 1.0
    other = Examples(np.full((1, 1, 1), 2.1, np.float32), features=("a",))
    assert preparation.apply(other)[0, 0, 0] == pytest.approx(2.0)


def test_what_cannot_be_prepared():
    empty = Examples(np.full((2, 2, 1), NAN, np.float32), features=("a",), source="f.csv")
    with pytest.raises(ValueError, match=r"f\.csv: the column 'a' has no value in the training"):
        Preparation.fit(empty, missing="fill")
    with pytest.raises(ValueError, match="missing='drop' is not known; wanted one of error, mask"):
        Preparation.fit(GIVEN, missing="drop")
    small = Examples(np.array([[[0.0], [1e-30]]], np.float32), features=("a",))
    far = Examples(np.array([[[3e38], [0.0]]], np.float32), features=("a",))
    with pytest.raises(ValueError, match="step 0, feature 0: the value is too far from those"):
        Preparation.fit(small).apply(far)


def test_features_without_names_are_refused():
    unnamed = Examples(np.ones((2, 3, 2), np.float32))
    with pytest.raises(ValueError, match="there are 0 names for 2 features; wanted Examples"):
        Preparation.fit(unnamed)


def words(*kinds, names=("blue", "red")):
    codes = [NAN if kind is None else names.index(kind) for kind in kinds]
    x = np.array(codes, np.float32).reshape(1, -1, 1)
    return Examples(x, features=("kind",), categories={"kind": names}, source="f.csv")


def test_words_become_columns_of_zeros_and_ones():
    preparation = Preparation.fit(words("red", "blue", "red"))
    assert preparation.columns == ("kind=blue", "kind=red")
    assert preparation.apply(words("blue", "red")).tolist() == [[[1, 0], [0, 1]]]


def test_words_of_another_part_or_file_are_found_by_name(caplog):
    """Only words of the training part have columns; others are unknown, counted and reported."""
    train = words("red", "blue", names=("blue", "green", "red"))
    preparation = Preparation.fit(train)
    assert preparation.columns == ("kind=blue", "kind=red")
    other = words("red", "green", "red", "teal", names=("green", "red", "teal"))
    assert preparation.apply(other).tolist() == [[[0, 1], [0, 0], [0, 1], [0, 0]]]
    assert caplog.messages == [
        "f.csv: 2 values of 'kind' were not in the training part ('green' is the first) and are "
        "taken as unknown"
    ]


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ("mask", [[0, 0, 1], [0, 1, 0], [0, 0, 1]]),
        ("fill", [[0, 0], [0, 1], [0, 0]]),
        ("forward", [[0, 0], [0, 1], [0, 1]]),
    ],
)
def test_missing_words(missing, wanted):
    examples = words(None, "red", None)
    preparation = Preparation.fit(words("red", "blue"), missing=missing)
    assert preparation.apply(examples).tolist() == [wanted]
    with pytest.raises(ValueError, match=r"f\.csv: example 0, step 0, feature 0: .* missing"):
        Preparation.fit(words("red", "blue")).apply(examples)


def test_numbers_for_words_and_the_reverse_are_refused():
    numbers = Examples(np.ones((1, 1, 1), np.float32), features=("kind",))
    with pytest.raises(ValueError, match="holds numbers; the model was trained with names"):
        Preparation.fit(words("red", "blue")).apply(numbers)
    with pytest.raises(ValueError, match="holds names; the model was trained with numbers"):
        Preparation.fit(numbers).apply(words("red"))
    with pytest.raises(ValueError, match="no feature 'kind', with which the model was trained"):
        Preparation.fit(words("red", "blue")).apply(GIVEN)


def test_statics():
    statics = {"age": np.array([1.0, 3.0]), "home": np.array(["u", None], object)}
    examples = replace(GIVEN, statics=statics)
    preparation = Preparation.fit(examples, missing="mask")
    assert preparation.static_columns == ("age", "age is missing", "home=u", "home is missing")
    assert preparation.apply_statics(examples).tolist() == [[-1, 0, 1, 0], [1, 0, 0, 1]]
    assert Preparation.fit(GIVEN, missing="fill").apply_statics(GIVEN).shape == (2, 0)
    with pytest.raises(ValueError, match="no static column 'age'"):
        preparation.apply_statics(GIVEN)
    whole = replace(words("red"), statics={"home": np.array([None], object)})
    with pytest.raises(ValueError, match=r"f\.csv, sequence 1, static column 'home': .* missing"):
        Preparation.fit(whole)


def test_the_future_of_a_series_needs_only_what_is_known_ahead(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,y,price,load\n1,1,10,5\n2,2,20,6\n3,,30,\n")
    roles = Roles(
        time="t", target="y", task="forecast", features=("price", "load"), known=("price",)
    )
    examples = read_examples(path, roles)
    found = Preparation.fit(examples).apply(examples)
    assert found[0, 2, 1] == 0 and np.isfinite(found).all()
    path.write_text("t,y,price,load\n1,1,10,5\n2,2,20,6\n3,,,7\n")
    with pytest.raises(ValueError, match="line 4, column 'price': the value is missing"):
        Preparation.fit(read_examples(path, roles))


def test_json_and_back_is_the_same_preparation():
    statics = {"home": np.array(["u", "v"], object)}
    examples = replace(GIVEN, statics=statics, roles=Roles(features=("a", "b"), sort=True))
    preparation = Preparation.fit(examples, missing="forward")
    again = Preparation.from_json(json.loads(json.dumps(preparation.as_json())))
    assert again == preparation and hash(again) == hash(preparation)
    assert again.apply(examples).values.tobytes() == preparation.apply(examples).values.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"missing": "drop"},
        {"features": [{"title": "a"}]},
        {"roles": {"x": 1}},
        {"statics": None},
        {"more": 1},
        {"features": 3},
    ],
)
def test_other_json_is_refused(change):
    value = Preparation.fit(GIVEN, missing="fill").as_json() | change
    with pytest.raises(ValueError, match="this is no"):
        Preparation.from_json(value)
    with pytest.raises(ValueError, match="this is not a saved preparation"):
        Preparation.from_json({})


FILE = "id,a,kind,b,mode\np,0.1,u,5,x\np,0.7,v,6,x\nq,0.2,u,-1e5,y\n"
MOVED = "b,more,mode,kind,id,a\n5,9,x,u,p,0.1\n6,9,x,v,p,0.7\n-1e5,,y,u,q,0.2\n"


def test_other_orders_of_columns_and_further_ones_give_the_same_bits(tmp_path):
    pytest.importorskip("pyarrow")
    for name, text in {"a.csv": FILE, "b.csv": MOVED}.items():
        (tmp_path / name).write_text(text)
    roles = Roles(id="id", features=("a", "kind", "b"), target="mode", task="classify")
    train = read_examples(tmp_path / "a.csv", roles)
    saved = json.dumps(Preparation.fit(train).as_json())
    preparation = Preparation.from_json(json.loads(saved))
    wanted = preparation.apply(train).values
    moved = read_examples(tmp_path / "b.csv", preparation.roles)
    assert preparation.apply(moved).values.tobytes() == wanted.tobytes()
    assert moved.y.tolist() == train.y.tolist()
    # Examples whose features are in another order are brought into that of the training part.
    other = read_examples(tmp_path / "b.csv", replace(roles, features=("b", "a", "kind")))
    assert preparation.apply(other).values.tobytes() == wanted.tobytes()


def test_found_out_columns_are_remembered_and_answers_are_not_needed(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text("label,t0,t1\nu,1,2\nv,3,4\n")
    (tmp_path / "b.csv").write_text("t1,extra,t0\n2,x,1\n4,y,3\n")
    train = read_examples(tmp_path / "a.csv", Roles(target="label"))
    preparation = Preparation.fit(train)
    assert preparation.roles.features == ("t0", "t1")
    other = read_examples(tmp_path / "b.csv", preparation.roles.inputs())
    assert other.y is None
    assert preparation.apply(other).tobytes() == preparation.apply(train).tobytes()


def test_words_to_tag_are_words(tmp_path):
    """Any number of them, from CoNLL as from a table; the model's vocabulary is its own affair."""
    pytest.importorskip("pyarrow")
    many = [f"w{i}" for i in range(400)]
    (tmp_path / "a.conll").write_text("".join(f"{w} O\n" for w in many) + "\nw3 B-X\nBath O\n")
    rows = [f"1,{w},O" for w in many] + ["2,w3,B-X", "2,Bath,O"]
    (tmp_path / "a.csv").write_text("\n".join(["id,word,tag", *rows]))
    roles = Roles(id="id", features=("word",), target="tag", task="tag")
    for name in ("a.conll", "a.csv"):
        examples = read_examples(tmp_path / name, roles)
        preparation = Preparation.fit(examples.select([0]))
        preparation = Preparation.from_json(json.loads(json.dumps(preparation.as_json())))
        words = preparation.apply(examples)
        assert isinstance(words, Words) and preparation.columns == ("word",)
        assert [words.different[i] for i in words.places[1]] == ["w3", "Bath"]
        assert [tags.tolist() for tags in examples.y][1] == ["B-X", "O"]
        assert examples.place(401, 0).endswith("line 403, column 'word'")
    with pytest.raises(ValueError, match="trained with words, one feature 'word'; there are"):
        preparation.apply(replace(examples, categories={}))
    (tmp_path / "b.csv").write_text("id,word,tag\n1,a,O\n1,,O\n")
    with pytest.raises(
        ValueError, match=r"line 3, column 'word': the value is missing; wanted one$"
    ):
        Preparation.fit(read_examples(tmp_path / "b.csv", roles), missing="fill")


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 10_000])
def test_moments_do_not_depend_on_the_parts(n):
    values = np.random.default_rng(n).normal(1e6, 1, n)
    found = set()
    for cuts in ([], [1], [n // 3, n // 2], list(range(0, n, 997))):
        moments = Moments()
        for part in np.split(values, cuts):
            moments.add(part)
        for part in np.split(values, cuts):
            moments.add_deviations(part)
        found.add((moments.n, moments.mean, moments.deviation))
    ((count, mean, deviation),) = found
    assert count == n and mean == pytest.approx(math.fsum(values) / n, rel=1e-15)
    # The squares are of deviations of 1, whose own error is an ulp of 1e6: 1e-10.
    exact = math.sqrt(math.fsum((values - mean) ** 2) / n)
    assert deviation == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_missing_values_by_column():
    X = np.array([[[1, 2, np.nan], [np.nan, 4, 8], [3, np.nan, np.nan]]], np.float32)
    examples = Examples(X, features=("dose", "load", "rate"))
    how = {"": "forward", "dose": "zero", "rate": "mask"}
    made = Preparation.fit(examples, missing=how, standardize=False)
    again = Preparation.from_json(json.loads(json.dumps(made.as_json())))
    assert again == made and made.columns == ("dose", "load", "rate", "rate is missing")
    wanted = [[[1, 2, 0, 1], [0, 4, 8, 0], [3, 4, 0, 1]]]
    assert again.apply(examples).tolist() == wanted
    scaled = Preparation.fit(examples, missing=how | {"": "fill"})
    found = scaled.apply(examples)[0]
    assert found[1, 0] == np.float32((0 - 2) / 1) and found[2, 1] == 0  # dose: 1, 3; load: 2, 4
    with pytest.raises(ValueError, match="step 2, feature 1: the value is missing"):
        Preparation.fit(examples, missing={"dose": "zero", "rate": "zero"})
    with pytest.raises(ValueError, match="missing names the column 'dosis', which is no input"):
        Preparation.fit(examples, missing={"dosis": "zero"})
    with pytest.raises(ValueError, match="missing='nought' is not known"):
        Preparation.fit(examples, missing={"dose": "nought"})
    with pytest.raises(ValueError, match="column 'dose' in a way of its own, which exported"):
        made.check_uniform()
    assert "missing" not in Preparation.fit(examples, missing="mask").as_json()["features"][0]
