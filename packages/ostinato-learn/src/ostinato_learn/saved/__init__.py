"""The directory of a saved model: the format, written and read without torch.

    write.py     writes the files, which its head lists, and replaces them as one
    read.py      reads and checks them, as `Saved`; checks.py: the entry "fitted", by its parts
    tensors.py   files of tensors, read without a copy
    card.py      the model card, README.md
    replay.py    the answers that are saved with a model, computed again: `verify`

The network of a model is a graph: `runtime/model_graph.py` and `runtime/step_graph.py`.
`models/saved_model.py` makes the content of a directory from a module in torch, and back.
"""
