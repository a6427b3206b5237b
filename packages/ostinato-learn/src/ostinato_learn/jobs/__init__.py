"""Jobs: a task done with a user's files and settings, for the command line.

failures.py output.py   errors that end a command; answers as text and CSV
inputs/                 settings, the task they ask for, the data and their parts
runs/                   directories of runs, models in them, results compared
base.py parts.py        `Job`, and one that learns from the parts of a file's sequences
classify.py, …          a job for each task; series.py, documents.py: the data of two
registry.py             the job of a configuration or of a saved model
experiment.py           one run, from a job to its directory
destination.py dry_run.py findings.py timing.py    what is said or decided before it
"""
