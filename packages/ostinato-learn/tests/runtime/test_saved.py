"""The directory of a saved model: what is read of it, in how much memory, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import numpy as np
import pytest
import safetensors.numpy
from saved_models import classifier, sequences, without_torch

import ostinato_learn
from ostinato_learn import runtime
from ostinato_learn.models import ClassifierNet, saved_model
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.saved.tensors import pack, unpack
from ostinato_learn.tasks.classify.model import Classifier


def some_tensors():
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "empty": np.zeros((0,), np.int64),
        "b": rng.normal(size=5),
        "c": np.arange(7),
        "d": np.array([True, False]),
        "scalar": np.array(3, np.float32),
    }


def test_tensors_are_those_of_the_package():
    tensors = some_tensors()
    ours, theirs = (
        unpack(safetensors.numpy.save(tensors), "x"),
        safetensors.numpy.load(pack(tensors)),
    )
    assert set(ours) == set(theirs) == set(tensors)
    for name, array in tensors.items():
        for found in (ours[name], theirs[name]):
            assert found.dtype == array.dtype and found.shape == array.shape
            np.testing.assert_array_equal(found, array)


def test_tensors_are_views_of_the_file():
    content = pack({"a": np.zeros(1000, np.float32)})
    array = unpack(content, "x")["a"]
    whole = np.frombuffer(content, np.uint8)
    assert np.shares_memory(array, whole) and not array.flags.writeable


def with_header(change):
    content = pack({"a": np.zeros(4, np.float32), "b": np.ones(4, np.float32)})
    n = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + n :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["a"].update(dtype="F8"), "is of type 'F8'"),
        (lambda h: h["a"].update(shape=[5]), "wanted .0, 20."),
        (lambda h: h["a"].update(shape=[-4]), "a whole number from 0"),
        (lambda h: h["a"].update(shape=[1] * 9), "a list of at most 8"),
        (lambda h: h["a"].update(shape=[1 << 40, 1 << 40, 0, 4]), r"wanted \[0, 0\]"),
        (lambda h: h["b"].update(data_offsets=[0, 16]), r"lies at .* wanted \[16, 32\]"),
        (lambda h: h["b"].update(data_offsets=[20, 36]), r"wanted \[16, 32\]"),
        (lambda h: h.pop("b"), "16 bytes beyond its tensors"),
        (
            lambda h: h.update(c={"dtype": "F32", "shape": [4], "data_offsets": [32, 48]}),
            "cut short: 'c' ends 16 bytes beyond",
        ),
        (lambda h: h.update(c=3), "wanted names and values"),
    ],
)
def test_a_wrong_header_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        unpack(with_header(change), "x")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\xff" * 99, b"\x02" + b"\0" * 7 + b"[]"])
def test_what_is_no_file_of_tensors_is_refused(content):
    with pytest.raises(ValueError, match="x"):
        unpack(content, "x")


def test_lists_in_lists_without_end_are_refused(tmp_path):
    classifier(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("[" * 200_000)
    for load in (runtime.load, ostinato_learn.load):
        with pytest.raises(ValueError, match=r"config\.json.*(is not JSON|nested too deeply)"):
            load(tmp_path / "m")


def test_a_configuration_that_would_fill_the_memory_is_not_read(tmp_path):
    classifier(tmp_path / "m")
    with (tmp_path / "m" / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # of zeros, which take no room on the disk
    with pytest.raises(ValueError, match="is larger than"):
        runtime.load(tmp_path / "m")


def test_weights_larger_than_their_header_says_are_not_read(tmp_path):
    classifier(tmp_path / "m")
    with (tmp_path / "m" / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    for load in (runtime.load, ostinato_learn.load):
        with pytest.raises(ValueError, match=r"model\.safetensors has \d+ bytes beyond"):
            load(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "check.safetensors"])
def test_a_link_in_the_directory_is_refused(tmp_path, name):
    """The directory may be one; as on a disk that other programs share."""
    classifier(tmp_path / "m")
    (tmp_path / "linked").symlink_to(tmp_path / "m")
    assert runtime.load(tmp_path / "linked") and ostinato_learn.load(tmp_path / "linked")
    (tmp_path / "m" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "m" / name).symlink_to(tmp_path / "elsewhere")
    for load in (runtime.load, runtime.verify, ostinato_learn.load):
        with pytest.raises(ValueError, match=f"{name} is a link, .* cp -rL .*m COPY makes"):
            load(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    classifier(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}"):
        runtime.load(tmp_path / "m")
    os.mkfifo(tmp_path / "m" / name)  # reading it would never end
    with pytest.raises(ValueError, match=f"has no {name}"):
        runtime.load(tmp_path / "m")


def test_no_name_leads_out_of_the_directory(tmp_path):
    classifier(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    (tmp_path / "secret").write_text("s")
    config["sha256"]["../secret"] = hashlib.sha256(b"s").hexdigest()
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"'sha256' lacks \[\] and has \['../secret'\]"):
        runtime.load(tmp_path / "m")


def test_weights_that_are_altered_or_not_finite_are_refused(tmp_path):
    path = tmp_path / "m"
    classifier(path)
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is not the file that was saved: its SHA-256 differs"):
        runtime.load(path)
    tensors = dict(unpack(bytes(content), "x"))
    tensors["readout.bias"] = np.array([np.nan, 0, 0], np.float32)
    (path / "model.safetensors").write_bytes(pack(tensors))
    config = json.loads((path / "config.json").read_text())
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    config["sha256"]["model.safetensors"] = digest
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"'readout.bias' has a value that is NaN or infinite"):
        runtime.load(path)


def test_a_directory_that_is_being_replaced_is_read(tmp_path):
    """Between two renames the old one lies beside; see `ostinato_learn.files`."""
    classifier(tmp_path / "m")
    expected = runtime.load(tmp_path / "m").predict_proba(sequences())
    (tmp_path / "m").rename(tmp_path / ".m.old")
    np.testing.assert_array_equal(runtime.load(tmp_path / "m").predict_proba(sequences()), expected)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_takes_at_most_twice_the_file(tmp_path):
    net = ClassifierNet(8, 3, "lstm", 1024, 2)  # 50 MB
    model = Classifier(network=ModuleNetwork(net.eval()), classes=np.arange(3))
    saved_model.save(model, tmp_path / "m", {}, 0)
    size = sum(file.stat().st_size for file in (tmp_path / "m").iterdir())
    script = f"""
        import ostinato_learn.runtime.model
        def peak():  # of this process, not of the one that began it
            status = open("/proc/self/status").read()
            return 1024 * int(status.split("VmHWM:")[1].split()[0])
        before = peak()
        model = ostinato_learn.runtime.load({str(tmp_path / "m")!r})
        print(peak() - before)
    """
    taken = int(without_torch(script))
    # The weights as they lie in the file and once more in panels; 8 MB for the interpreter's pages
    # and for pages that the kernel counts late.
    assert 0.9 * size < taken < 2 * size + 8e6, (taken, size)
