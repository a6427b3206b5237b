"""Guards: what a step read while it was recorded, compared again before each replay.

observation.py  a run observed; guards made from it, and evaluated
reads.py        the reads of a step, by a walk along the names in its code
code.py         the names that code mentions; names_seen.py: those that it computes
snapshots.py    the side effects of a step, detected and undone
"""
