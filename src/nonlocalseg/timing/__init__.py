"""How fast, how large, how exact: every measurement behind `nonlocalseg benchmark`, with what the papers published beside.

`measuring` compares callables, `counting` counts their multiply-adds, `tables` holds results; `blocks`, `networks`,
`steps` and `loading` say what is compared, `published` what the papers measured.
"""

from nonlocalseg.timing.blocks import block, local_attention, operations
from nonlocalseg.timing.loading import loader
from nonlocalseg.timing.measuring import Case, compare
from nonlocalseg.timing.networks import distribution, head, network
from nonlocalseg.timing.steps import train_step
from nonlocalseg.timing.tables import Table

__all__ = [
    "Case",
    "Table",
    "block",
    "compare",
    "distribution",
    "head",
    "loader",
    "local_attention",
    "network",
    "operations",
    "train_step",
]
