"""Saved models without torch: numpy and the engine.

step_graph.py    one step as a value, in memory and in a file; values.py checks what is read
reference.py     a step played by NumPy: the meaning of every node
model_graph.py   a whole model: layers, readout and head; composed as one step
programs.py      a step as a program of the engine, played on arrays
model.py         `Model`: predictions in a person's labels
"""
