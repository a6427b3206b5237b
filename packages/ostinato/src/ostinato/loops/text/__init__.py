"""The text of a function that has loops over time.

source.py       from a function to its syntax tree, and back to a function in its place
dataflow.py     what a body reads before it writes, and what is read after the loop
bodies.py       what a body does: what it changes, appends to, adds to
comprehensions.py   list comprehensions as loops
rewrite.py      the loops of a tree, each a Python loop that can give its iterations to a scan
watched.py      the changes of a body: reads and writes that the loop sees
"""
