"""Recipe: everything a run depends on, composed of the settings each folder owns, and the checks that span them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stopgrad.contracts import ConfigError, Known, did_you_mean
from stopgrad.data import DataConfig
from stopgrad.eval import EvalConfig
from stopgrad.media import AnyData, AnyViews, kind_named
from stopgrad.methods import METHODS, MethodConfig, method_named
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe.typed import build, convert, field_types
from stopgrad.training.config import LoopConfig, WatchConfig
from stopgrad.views.config import ViewsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A run as data; saved resolved as recipe.yaml, which re-runs as is."""

    method: MethodConfig
    seed: int = 0
    data: AnyData = field(default_factory=DataConfig)
    views: AnyViews = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be from 0 to 2**63 - 1, got {self.seed}")
        self.method.check(self.known())
        if self.optim.warmup_epochs >= self.loop.epochs and self.optim.warmup_epochs:
            raise ConfigError(
                f"optim.warmup_epochs={self.optim.warmup_epochs} leaves nothing of loop.epochs={self.loop.epochs}; "
                "lower the one or raise the other"
            )
        if self.data.max_side < self.views.image_size:
            raise ConfigError(
                f"data.max_side={self.data.max_side} keeps fewer pixels than views.image_size={self.views.image_size} "
                f"needs; use --set data.max_side={2 * self.views.image_size}"
            )
        if self.views.mean:  # else they are measured on the images
            self.views.statistics(self.data.channels)

    def known(self, images: int = 0) -> Known:
        """What the method has to go with; images: that are trained on, where somebody has counted them."""
        return Known(
            crops=self.views.sides,
            batch_size=self.loop.batch_size,
            accumulate=self.loop.accumulate,
            backbone=self.backbone.name,
            seed=self.seed,
            images=images,
            epochs=self.loop.epochs,
        )


def from_dict(values: object) -> Recipe:
    """A recipe from nested plain values; `method.name` says whose settings stand under `method`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe: needs settings (key: value), got {type(values).__name__}")
    method = values.get("method")
    if isinstance(method, str):
        method = {"name": method}
    if not isinstance(method, Mapping) or "name" not in method:
        raise ConfigError(f"method: needs a name; allowed: {', '.join(sorted(METHODS))}")
    _, config_class = method_named(str(method["name"]))
    kinds = field_types(Recipe) | _of_kind(values.get("views"))
    built: dict[str, Any] = {"method": build(config_class, method, "method")}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"{key}: unknown setting{did_you_mean(str(key), kinds)}")
        if key != "method":
            built[key] = convert(kinds[key], value, str(key))
    return Recipe(**built)


def _of_kind(views: object) -> dict[str, Any]:
    """{part: settings class} of the parts that follow from the kind of samples, which the views name."""
    kind = kind_named(views.get("kind", "image") if isinstance(views, Mapping) else "image")
    return {"views": kind.views, "data": kind.data}
