"""Loops over time in users' own functions, run as a `scan`.

The text of a function:

    source.py       from a function to its syntax tree, and back to a function in its place
    dataflow.py     what a body reads before it writes, and what is read after the loop
    bodies.py       what a body does: what it changes, appends to, adds to
    comprehensions.py   list comprehensions as loops
    rewrite.py      the loops of a tree, each a Python loop that can give its iterations to a scan
    watched.py      the changes of a body: reads and writes that the loop sees

A loop while it runs:

    runtime.py      what the code of a rewritten function calls; unwatched.py: a loop in Python
    items.py        what a loop goes through: ranges, tensors, lists; enumerate, zip, reversed
    run.py          some iterations in Python, then one scan of all the others
    fit.py          whether what is known of a loop fits a call; finish.py: what a scan leaves
    periods.py      iterations whose branches repeat, a group of them as one step

An iteration as a step:

    index.py        the loop's variable in a step that represents many iterations
    elements.py     elements of a sequence that an iteration reads or writes at the loop's index
    emitted.py      lists that iterations append to
    state.py        structures of state; attributes.py: state in attributes of objects
    carry.py        the state at the begin of a scan, taken apart
    frame.py        what a body finds in the place of its loop
    step.py         one run of the body; plan.py: what it did; probe.py: the first run, unseen

And around these:

    site.py         what is known of a loop of the text; joined.py: lists as one tensor
    nostep.py       why the iterations of a loop are no steps, and what to write instead
    functions.py    `ostinato.loop`; modules.py: accelerate(loops=True); report.py: explain, inspect
    scanned.py      scan of a step that keeps state in attributes
"""
