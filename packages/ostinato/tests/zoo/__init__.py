"""The steps and modules that all tests share, and the ways to play and compare them.

steps         steps as PyTorch users write them, with their weights and inputs
wild          steps that do something odd
random_steps  steps drawn from the operations that PyTorch users put into one
small         a small RNN, a small module, and their inputs
playing       the loop that defines `scan`, and comparisons with it
bits          comparisons of scans to the last bit
reports       reports of runs without their figures
suites        which of many parameters the quick suite plays, and how many examples it draws
"""
