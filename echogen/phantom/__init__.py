"""Phantoms: simulated apical echocardiograms with exact labels, sectors and volumes.

A heart of smooth shapes (`anatomy`), scattering (`tissue`), is imaged by a simulated phased array
(`beam`) and written in the layout of CAMUS (`dataset`). Deterministic: the same numbers give the
same bytes. What the pictures are for: trying the program, and tests where the truth is known.
"""

from echogen.phantom.anatomy import PHASES, VIEWS, Phase, View
from echogen.phantom.case import PhantomCase, PhantomFrame, make_case, make_frame
from echogen.phantom.dataset import PhantomReport, write_dataset

__all__ = [
    "PHASES",
    "VIEWS",
    "PhantomCase",
    "PhantomFrame",
    "PhantomReport",
    "Phase",
    "View",
    "make_case",
    "make_frame",
    "write_dataset",
]
