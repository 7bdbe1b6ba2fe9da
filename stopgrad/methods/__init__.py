"""METHODS: every method by its name on the command line. A new one is a file here and a line in the table."""

from __future__ import annotations

from stopgrad.methods.simsiam import SimSiamConfig, simsiam

MethodConfig = SimSiamConfig  # a union, once there are two

METHODS = {
    "simsiam": (simsiam, SimSiamConfig),
}
