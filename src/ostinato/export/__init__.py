"""Saved models in other forms: ONNX, and C.

    onnx/         a model as one ONNX file
    c/            a model as one C file, with a header, a self-test and a report
      program.py  a step graph as instructions over named arrays of constants
      prepare.py  from the caller's input to the network's input
      function.py the body of a C function
      write.py    the text of the C file and its header
      ops.py      the operations of the engine as C expressions
      play.py     the arithmetic of the C file in NumPy, and the bound of its rounding
    parity.py     the differences between an exported model and the runtime

Nothing here imports torch.
"""
