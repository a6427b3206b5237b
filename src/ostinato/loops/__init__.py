"""Loops over time in users' own functions, run by `scan`.

    source.py      from a function to its syntax tree, and back to a function in its place
    dataflow.py    what a body reads before it writes, and what is read after the loop
    rewrite.py     the loops of a tree, each a Python loop that can hand its iterations to a scan
    items.py       what a loop iterates over: ranges, tensors, lists; enumerate, zip, reversed
    index.py       the loop's variable in a step that stands for many iterations
    elements.py    elements of a sequence that an iteration reads or writes at the loop's index
    emitted.py     lists that iterations append to
    state.py       structures of state; attributes.py: state in attributes of objects
    frame.py       one run of the body as a step; probe.py: the first such run, unseen
    run.py         a loop while it runs: a few iterations in Python, then one scan
    site.py        a loop of the source text over all its calls; joined.py: lists as one tensor
    functions.py   `ostinato.loop`; modules.py: accelerate(loops=True); report.py: explain, inspect
"""
