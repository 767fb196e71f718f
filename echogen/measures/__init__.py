"""Measures of labelled echocardiograms, in millimetres, and tables of them.

`shape`, `volume`, `texture` and `compare` are pure functions over arrays; `collect` and `realism`
read datasets and stores.
"""
