from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs.config import OPTIONS, Config, ConfigError, Option
from zoo.suites import draws

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def values_of(option: Option) -> st.SearchStrategy:
    """Values that the option allows."""
    if option.choices:
        return st.sampled_from(option.choices)
    if option.type is bool:
        return st.booleans()
    if option.type is str:
        return texts.filter(lambda text: text.strip() == text and text != "none")
    if option.type is int:
        return st.integers(int(option.limits.get("at least", 1)), 2**31)
    return st.floats(1e-9, 0.999)


EXCLUSIVE = "training.epochs"  # beside iterations it is refused, so it has tests of its own
layer = st.fixed_dictionaries(
    {}, optional={key: values_of(o) for key, o in OPTIONS.items() if key != EXCLUSIVE}
)


def as_text(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@draws(60)
@given(flags=layer, sets=layer, file=layer)
def test_flags_beat_set_beats_file_beats_defaults_and_toml_comes_back(
    flags, sets, file, tmp_path_factory
):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(Config().updated(file).toml(), "utf-8")
    from_file = {k: v for k, v in configuration.read_file(path).items() if k in file}
    from_sets = configuration.read_sets([f"{k}={as_text(v)}" for k, v in sets.items()])
    from_flags = {k: OPTIONS[k].check(as_text(v), OPTIONS[k].flag) for k, v in flags.items()}
    resolved = configuration.resolve(from_file, from_sets, from_flags)

    expected = {key: o.default for key, o in OPTIONS.items()} | {"training.iterations": 5000}
    expected |= file | sets | flags
    assert dict(resolved.items()) == expected

    path.write_text(resolved.toml(), "utf-8")
    assert configuration.resolve(configuration.read_file(path)) == resolved


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda o: o.key)
def test_defaults_are_allowed_values(option):
    if option.default is not None:
        assert option.check(option.default, "here") == option.default


def test_a_later_layer_chooses_between_iterations_and_epochs():
    by_iterations, by_epochs = {"training.iterations": 7}, {"training.epochs": 2.0}
    assert configuration.resolve(by_iterations, by_epochs).training.iterations is None
    assert configuration.resolve(by_epochs, by_iterations).training.epochs is None
    with pytest.raises(ConfigError, match="both iterations and epochs"):
        configuration.resolve(by_iterations | by_epochs)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("model.hidden_size", "0"),
        ("model.hidden_size", "1.5"),
        ("model.hidden_size", True),
        ("model.hidden_size", ""),
        ("model.cell", "RNN"),
        ("model.dropout", "1"),
        ("model.bidirectional", "maybe"),
        ("training.learning_rate", "0"),
        ("training.learning_rate", "nan"),
        ("training.learning_rate", "inf"),
        ("training.learning_rate", "none"),
        ("training.seed", 2**32),
        ("data.test", ""),
    ],
)
def test_wrong_values_are_refused_by_place_and_value(key, raw):
    with pytest.raises(ConfigError, match=r"^here is .*; wanted "):
        OPTIONS[key].check(raw, "here")


def test_none_unsets_what_need_not_be_set():
    file = {"training.clip_norm": 1.0}
    sets = configuration.read_sets(["training.clip_norm=none"])
    assert configuration.resolve(file, sets).training.clip_norm is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nhiden_size = 3", r"no parameter 'model\.hiden_size'; did you mean model.hidden"),
        ("[modle]\ncell = 'gru'", r"no section \[modle\]; did you mean \[model\]"),
        ("cell = 'gru'", r"cell is outside a section; it is in \[model\]"),
        ("[model]\ncell = 3", r"model\.cell is 3; wanted rnn"),
        ("[model]\nhidden_size = '3x'", r"model\.hidden_size is '3x'; wanted a whole number"),
        ("[model]\ncell = [1]", r"model\.cell is \[1\]; wanted rnn"),
        ("[model", "is not TOML"),
        ("[model]\ncell = " + "[" * 10_000, "is not TOML"),
        ("[model]\nhidden_size = " + "9" * 10_000, "is not TOML"),
    ],
)
def test_files_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        configuration.read_file(path)
    assert "my.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*gone\.toml"):
        configuration.read_file(tmp_path / "gone.toml")


def test_set_takes_the_name_alone_and_needs_an_equals_sign():
    assert configuration.read_sets(["hidden_size=3"]) == {"model.hidden_size": 3}
    with pytest.raises(ConfigError, match=r"wanted section\.key=value"):
        configuration.read_sets(["hidden_size"])


def test_keys_of_data_and_task_are_few():
    """A user who reads the configuration of a run reads all of them; a further one has a reason
    as good as those of a file from another country, of codes that are no quantities, of what a
    device writes for a missing value, of a forecast that is negative where no sale can be, or of
    recordings that are too few to test on whole ones, or a clock that stands still."""
    assert sum(option.section in ("data", "task") for option in OPTIONS.values()) <= 39


def test_names_are_unique_so_that_flags_are():
    names = [option.name for option in OPTIONS.values()]
    assert len(set(names)) == len(names)
    assert set("".join(names)) <= set(string.ascii_lowercase + "_")
