"""Operations that the recorder replaces by others.

elementwise.py      the table `DECOMPOSITIONS`, below autograd, and its elementwise rows
axes.py, norms.py, losses.py, images.py   further rows
complex_numbers.py  complex tensors as pairs of real ones
functions.py        replacements above autograd; matrices.py: of linear algebra
"""
