"""Saved models in other forms: ONNX, and C.

    onnx.py       a model as one ONNX file; the map of the onnx_*.py files
    c.py          a model as one C file, with a header, a self-test and a report
    c_program.py  a step graph as instructions over named arrays of constants
    c_prepare.py  from what a caller gives to what the network reads
    c_function.py the body of a C function
    c_write.py    the text of the C file and its header
    c_ops.py      the operations of the engine as C expressions
    c_play.py     the arithmetic of the C file in NumPy, and the bound of its rounding

Nothing here imports torch.
"""
