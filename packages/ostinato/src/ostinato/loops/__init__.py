"""Loops over time in users' own functions, run as a `scan`.

    text/           the text of a function: its loops found, and rewritten
    iteration/      an iteration as a step: elements, state, what it emits
    running/        a loop while it runs: some iterations in Python, then one scan of the others
    rewriting.py    a function with its loops rewritten
    reach.py        the functions that code calls; inplace.py: those with loops, run where they are
    functions.py    `ostinato.loop`; modules.py: accelerate(loops=True); explained.py: `explain`
    scanned.py      scan of a step that keeps state in attributes

Imports point from running to iteration to text.
"""
