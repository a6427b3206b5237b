"""A loop while it runs.

run.py          some iterations in Python, then one scan of all the others
unwatched.py    a loop in Python
matched.py      whether what is known of a loop fits a call; finish.py: what a scan leaves
joined.py       lists as one tensor
site.py         what is known of a loop of the text
"""
