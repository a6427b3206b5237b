"""An iteration as a step.

items.py        what a loop goes through: ranges, tensors, lists; enumerate, zip, reversed
index.py        the loop's variable in a step that represents many iterations
periods.py      iterations whose branches repeat, a group of them as one step
elements.py     elements of a sequence that an iteration reads or writes at the loop's index
emitted.py      lists that iterations append to
state.py        structures of state; attributes.py: state in attributes of objects
carry.py        the state at the begin of a scan, taken apart
frame.py        what a body finds in the place of its loop
step.py         one run of the body; plan.py: what it did; probe.py: the first run, unseen
nostep.py       why the iterations of a loop are no steps, and what to write instead
"""
