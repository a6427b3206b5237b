"""A loop while it runs.

    runtime.py      what the code of a rewritten function calls; unwatched.py: a loop in Python
    run.py          some iterations in Python, then one scan of all the others
    fit.py          whether what is known of a loop fits a call; finish.py: what a scan leaves
    joined.py       lists as one tensor
    site.py         what is known of a loop of the text
"""
