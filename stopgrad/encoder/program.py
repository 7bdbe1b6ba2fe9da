"""A torch.export program (.pt2): the backbone with its normalisation, the same bytes for the same weights.

Only ever written: reading such a file can run code, so a stranger's is never loaded. What the exporter notes about
where a node came from (file paths, lines, class names) is removed; torch gives the archive fixed names and dates.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch

from stopgrad.encoder.entrance import entrance
from stopgrad.encoder.file import KEY, Encoder, description

ORIGIN = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


def exported_program(encoder: Encoder) -> Any:
    """The program in memory: pixels [batch, C, S, S], or what else `entrance` says -> features [batch, dim]."""
    into = entrance(encoder.of_one_size())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            into.model.eval(), (into.example(),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for note in ORIGIN:
                node.meta.pop(note, None)
    return program


def program_bytes(encoder: Encoder, program: Any) -> bytes:
    """The file's content."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": description(encoder)})
    return buffer.getvalue()
