"""Labels that look like spans and are not: the message names the label."""

from __future__ import annotations

from task_files import QUICK


def test_a_label_that_belongs_to_no_span(tmp_path, ostinato):
    sentence = "Emma NNP B-PER\nsaw VB O\nBath NNP {}\n\n"
    text = sentence.format("B-LOC") * 20
    (tmp_path / "right.conll").write_text(text)
    (tmp_path / "wrong.conll").write_text(sentence.format("I-LOC") + text)
    right, wrong = (
        ostinato("train", tmp_path / f"{name}.conll", "--tag", "tag", *QUICK)
        for name in ("right", "wrong")
    )
    assert "F1 of spans" in right.out
    assert "each word's most frequent label   100.00 %" in right.out
    assert "spans are not measured" not in right.err
    assert "F1 of spans" not in wrong.out
    assert "wrong.conll, sequence 1: the tag 'I-LOC' at step 2 belongs to no span" in wrong.err
