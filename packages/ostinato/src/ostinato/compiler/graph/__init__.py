"""From a recording to the step graph: ATen calls become named operations in canonical form.

node.py             the nodes of the step graph, their three kinds (rows, once, sum), their order
from_aten.py        the stage itself: a Recording goes in, a DifferentiableGraph comes out
values.py           the recorded values as nodes, call by call
rules.py            the form of a rule, which gives the nodes of an ATen call on rows
aten_*.py           the rules: elementwise, indices, reductions, shapes, products, convolutions
left_to_torch.py    the calls without a batch, which PyTorch computes once a scan
builder.py          makes nodes, each once
moves.py            calls that move elements; PyTorch on element numbers shows where to
arrays.py           rows that are arrays: an axis spread or reduced, elements taken, products
identities.py       elementwise operations that can be left out or simplified
evaluate.py         the tensors of nodes that are computed once a scan
saved.py            the forward part as a model holds it
"""
