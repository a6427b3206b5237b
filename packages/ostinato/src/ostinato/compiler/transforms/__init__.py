"""A scan under transforms, and its derivatives of any order, as scans.

stand_ins.py    a call under transforms of torch.func: its step is found outside of them
functions.py    a scan and its gradients as functions with a rule for each transform
tangents.py     the step's jvp as a step
folds.py        the members that vmap maps over as rows of one batch
by_the_loop.py  what the engine cannot play, by the Python loop of the recorded step
"""
