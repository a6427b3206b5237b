"""Saved models in other forms: ONNX, and C.

    c.py          a model as one C file, with a header, a self-test and a report
    c_program.py  a step graph as instructions over named arrays of constants
    c_write.py    the text of the C file and its header
    c_ops.py      the operations of the engine as C expressions

Nothing here imports torch.
"""
