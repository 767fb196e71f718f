"""Measures of labelled echocardiograms: pure functions over arrays, in millimetres.

They know no file and no store: NumPy and SciPy alone.
"""
