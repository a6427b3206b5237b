"""The tutorial runs, and the outputs saved in it are those of a full run."""

import platform
import re
import runpy
from pathlib import Path

import nbformat
import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
NOTEBOOK = TUTORIAL / "rnn_mnist.ipynb"
ITERATIONS = 100  # RMSProp as it is here begins with small steps
REPORT = re.compile(r"iteration +(\d+) +loss ([\d.]+) +training accuracy ([\d.]+)%")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/\w[\w.-]*/\w|\b[A-Za-z]:\\")

script = runpy.run_path(str(TUTORIAL / "execute.py"))


@pytest.fixture(scope="module")
def saved():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The notebook after a run of few iterations, in an empty directory."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTINATO_TUTORIAL_ITERATIONS", str(ITERATIONS))
        patch.delenv("MPLBACKEND", raising=False)  # or the figures would not come back
        result = script["executed"](nbformat.read(NOTEBOOK, as_version=4), folder)
    assert list(folder.iterdir()) == []  # it leaves nothing behind
    return result


@pytest.fixture(params=["saved", pytest.param("short", marks=pytest.mark.slow)])
def notebook(request):
    return request.getfixturevalue(request.param)


def outputs(notebook):
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def printed(notebook, cell_id):
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    (output,) = (output for output in cell.outputs if output.output_type == "stream")
    return output.text


def percents(text):
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


def reports(notebook):
    """(iteration, loss, accuracy) of each."""
    found = REPORT.findall(printed(notebook, "training"))
    return [(int(iteration), float(loss), float(accuracy)) for iteration, loss, accuracy in found]


def test_no_cell_fails(notebook):
    assert [output for output in outputs(notebook) if output.output_type == "error"] == []


def test_the_run_on_noise_shows_all_states(notebook):
    assert printed(notebook, "fake").splitlines() == [
        "last state (128, 128)",
        "all states (28, 128, 128)",
        "the last of all states is the last state: True",
    ]


def test_scan_is_the_loop(notebook):
    difference = float(re.search(r"differ by ([\d.e+-]+)", printed(notebook, "loop")).group(1))
    assert difference < 28 * 128 * 2**-24  # a rounding of single precision for each product summed


def test_one_hot_labels_say_what_the_numbers_say(notebook):
    first, back = printed(notebook, "one-hot").splitlines()
    label, vector = first.split(" is ")
    assert [float(v) for v in vector.strip("[]").split()].index(1.0) == int(label)
    assert back == "and back again: True"


def test_the_watermark_has_date_and_commit(notebook):
    shown = printed(notebook, "versions")
    assert re.search(r"^date +\d{4}-\d\d-\d\d$", shown, re.MULTILINE)
    assert re.search(r"^commit +([0-9a-f]{12}|not in a checkout)$", shown, re.MULTILINE)


def test_the_table_of_shapes_adds_up(notebook):
    n_parameters = 28 * 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert printed(notebook, "parameters") == f"{n_parameters} numbers to learn\n"
    (table,) = (cell.source for cell in notebook.cells if cell.id == "shapes")
    assert f"= {n_parameters}$" in table


def test_batches_go_on_into_the_next_epoch(notebook):
    assert "[4 0] epochs completed: 1" in printed(notebook, "wrap")


def test_four_figures(notebook):
    pictures = [o for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert len(pictures) == 4


def test_the_untrained_network_knows_nothing(notebook):
    loss = float(re.search(r"[\d.]+", printed(notebook, "loss")).group())
    assert 2.2 < loss < 2.6  # log 10 = 2.30 is to believe in all digits alike


@pytest.mark.slow
def test_the_loss_falls(short):
    (first, loss_before, _), (last, loss_after, _) = reports(short)
    assert (first, last) == (0, ITERATIONS)
    assert loss_after < 0.7 * loss_before
    of_all = percents(printed(short, "test"))[-1]
    assert of_all > 30  # guessing gives 10


def test_saved_outputs_are_those_of_a_full_run(saved):
    assert [iteration for iteration, _, _ in reports(saved)] == [0, 1000, 2000, 3000, 4000, 5000]
    assert "5000 iterations in" in printed(saved, "elapsed")
    of_128, of_all = percents(printed(saved, "test"))
    assert of_128 > 95
    assert of_all > 96.5  # from update to update it moves by some tenths
    default, _ = percents(printed(saved, "classifier"))
    assert default > 96.5


def test_gradients_vanish_where_the_page_says_so(notebook):
    ratios = re.findall(r"first step / last step = ([\d.e+-]+)", printed(notebook, "vanish-run"))
    halved, kept, grown, leaky = map(float, ratios)
    assert halved < 1e-20 < kept < 1e-4 < leaky < 1 < grown


def test_words_are_predicted_better_after_training(notebook):
    before = int(printed(notebook, "words-net").split()[-1])
    after = int(printed(notebook, "words-training").split()[-1])
    assert after < 0.95 * before


def test_the_saved_words_are_learnt(saved):
    assert int(printed(saved, "words-training").split()[-1]) < 90  # as often as they are: 243


def test_saved_outputs_are_of_one_run_from_top_to_bottom(saved):
    counts = [cell.execution_count for cell in saved.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "stderr" not in [output.get("name") for output in outputs(saved)]


def test_the_file_tells_nothing_of_the_machine_but_what_it_prints(saved):
    texts = [o.text if o.output_type == "stream" else o.data["text/plain"] for o in outputs(saved)]
    assert [text for text in texts if ABSOLUTE_PATH.search(text)] == []
    assert [text for text in texts if platform.node() and platform.node() in text] == []
    cleaned = script["cleaned"](nbformat.read(NOTEBOOK, as_version=4))
    assert cleaned == saved  # neither times nor details of the kernel in the metadata


def test_paths_would_be_found():
    assert ABSOLUTE_PATH.search("reading /home/ann/digits.npz")
    assert ABSOLUTE_PATH.search(r"reading C:\digits.npz")
    assert not ABSOLUTE_PATH.search("loss 0.5, 3/4 of 2/3, https://example.org/a/b")


def test_the_file_is_small():
    assert NOTEBOOK.stat().st_size < 400_000
