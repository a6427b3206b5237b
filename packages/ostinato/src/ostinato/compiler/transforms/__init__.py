"""Derivatives of a scan, of any order, as scans.

    tangents.py     the step's jvp as a step
    functions.py    a scan and its gradients as functions that PyTorch can transform
"""
