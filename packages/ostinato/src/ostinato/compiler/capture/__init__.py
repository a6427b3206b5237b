"""From a Python step to a recording: guards, captured tensors, ATen calls.

captures.py     one run of a step, which finds the tensors that it takes from outside
guards/         what a step read, and its side effects
record.py       two recordings of a step, forward and backward; unify.py: as one
recorder.py     the mode that records ATen calls; replaced/: operations replaced by others
recording.py    `Recording`: the calls as numbered values
captured_rows.py, row_products.py   captured tensors with a row for each row of the batch
draws.py        random numbers of a step
whole_numbers.py   whole numbers, as long as floats hold them
"""
