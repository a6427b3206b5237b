"""The public names of data and datasets have examples, which tests/docs/test_pages.py runs."""

import importlib

import pytest


@pytest.mark.parametrize("name", ["data.Batches", "data.Ragged", "data.as_sequences", "data.read",
                                  "data.Examples", "data.Roles", "data.Preparation",
                                  "data.read_examples", "data.stream_examples",
                                  "data.store_examples", "data.read_documents", "data.read_conll",
                                  "datasets.mnist", "datasets.vowels", "datasets.austen",
                                  "datasets.read_idx"])  # fmt: skip
def test_every_public_name_has_an_example(name):
    package, attribute = name.split(".")
    documented = getattr(importlib.import_module(f"ostinato.{package}"), attribute)
    assert ">>>" in documented.__doc__
