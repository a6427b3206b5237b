"""A loop while it runs.

run.py          some iterations in Python, then one scan of all the others
unwatched.py    a loop in Python
attempt.py      that scan: the plan that fits, the times, the engine's call
window.py       its iterations: whether a plan fits them, and what they read
finish.py       what they leave
pace.py         whether a scan takes less time
joined.py       lists as one tensor
site.py         what is known of a loop of the text
"""
