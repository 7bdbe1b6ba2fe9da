"""The first layers of a finished run's projector, out of its last checkpoint: its encoder is the backbone alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from stopgrad.assemble.build import build_method
from stopgrad.contracts import CheckpointError, ConfigError, MissingInputError
from stopgrad.encoder import Encoder
from stopgrad.nn.kept import KeptLayer
from stopgrad.nn.with_kept import first_layers, with_kept
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.training import checkpoint

WITHOUT = "use --from-projector-layer 0"


def with_projector(encoder: Encoder, file: Path, count: int) -> Encoder:
    """The encoder with `count` layers of the projector on it. file: the encoder's, in its run's folder.

    Raises MissingInputError, CheckpointError, ConfigError.
    """
    layers, tensors = projector_layers(file.parent, count, encoder.backbone)
    trunk = with_kept(encoder.backbone, layers, seed=0)
    trunk.kept.load_state_dict(tensors)
    return replace(encoder, backbone=trunk.eval(), config=replace(encoder.config, kept=layers))


def projector_layers(
    folder: Path, count: int, backbone: nn.Module | None = None
) -> tuple[tuple[KeptLayer, ...], dict[str, Tensor]]:
    """What the first `count` layers are, and their tensors. backbone: that of the run's encoder, to compare with.

    Raises MissingInputError (no checkpoint), CheckpointError, ConfigError (fewer layers, no projector at all).
    """
    run = RunDir(folder, writes=False)
    if not run.recipe.exists():
        raise MissingInputError(f"{folder}: no run there, so no projector either (no recipe.yaml); {WITHOUT}")
    recipe = load_recipe(run.recipe)
    method = build_method(recipe, images=1)
    if not isinstance(method, Siamese):
        raise ConfigError(f"{folder}: {recipe.method.name} has no projector whose layers could be kept; {WITHOUT}")
    where = "" if method.keeps == "online" else "target.target_"
    projector = method.get_submodule(f"{where}projector")
    if count:  # before the checkpoint is read: it may be large
        first_layers(projector, count)
    state = checkpoint.load_newest(run, lambda _: None)
    if state is None:
        raise MissingInputError(f"{folder} has no checkpoint, where its projector would be; {WITHOUT}")
    try:
        projector.load_state_dict(_below(state["method"], f"{where}projector."))
    except RuntimeError as error:
        raise CheckpointError(f"{run.checkpoints}: holds another projector than recipe.yaml says; {WITHOUT}") from error
    saved = _below(state["method"], f"{where}backbone.")
    own = {} if backbone is None else backbone.state_dict()
    if not all(name in saved and torch.equal(value.cpu(), saved[name]) for name, value in own.items()):
        raise CheckpointError(
            f"{folder}: its checkpoint is not of the run's end, its projector does not go with its encoder; {WITHOUT}"
        )
    return first_layers(projector, count)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
