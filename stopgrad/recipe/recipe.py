"""Recipe: everything a run depends on, composed of the settings each folder owns, and the checks that span them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stopgrad.contracts import ConfigError, Known, did_you_mean
from stopgrad.data import DataConfig
from stopgrad.data.captioned import CaptionedDataConfig
from stopgrad.eval import EvalConfig
from stopgrad.media import AnyData, AnyViews, kind_named
from stopgrad.methods import METHODS, MethodConfig, method_named
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text_config import OWN_TEXTS, TEXTS
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe.typed import build, convert, field_types
from stopgrad.training.config import LoopConfig, WatchConfig
from stopgrad.views.captioned_config import CaptionedViewsConfig
from stopgrad.views.config import ViewsConfig
from stopgrad.views.sensors import check_crops, view_names


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
        if isinstance(self.views, ViewsConfig) and isinstance(self.data, DataConfig):
            _check_pixels(self.views, self.data)
        if isinstance(self.views, CaptionedViewsConfig) and isinstance(self.data, CaptionedDataConfig):
            _check_pixels(self.views.image(), self.data.images())
        if self.backbone.split.startswith("sensors"):
            self._check_sensors(self.backbone.split)
        elif self.backbone.split != "none":
            self._check_split(self.backbone.split)
        if self.eval.tower:
            self._check_tower(self.eval.tower)
        _check_reads(self.backbone.name, self.views.kind)

    def _check_sensors(self, split: str) -> None:
        data, views = self.of_images(f"backbone.split={split}")
        sensors = data.scene_sensors()
        if len(sensors) < 2:
            raise ConfigError(
                f"backbone.split={split} is a backbone for each sensor, 2 or more, got data.sensors="
                f"{list(data.sensors)}; name them, as in --set data.sensors=[rgb,depth]"
            )
        if split == "sensors":
            return
        if sensors[0].what != "rgb":
            raise ConfigError(
                f"backbone.split={split} takes lightness and colour of the first sensor, which is {sensors[0]}; put a "
                "photograph first, or use backbone.split=sensors"
            )
        if views.mean and (views.mean[:3], views.std[:3]) != ((0.0,) * 3, (1.0,) * 3):
            raise ConfigError(
                f"backbone.split={split} reads {sensors[0].name} from 0 to 1, got views.mean={list(views.mean)}; type "
                "--set views.mean=[] --set views.std=[], which measures the other sensors alone"
            )

    def _check_tower(self, tower: str) -> None:
        data, _ = self.of_images(f"eval.tower={tower}")
        names = view_names(self.backbone.split, data.scene_sensors())
        if tower not in names:
            raise ConfigError(
                f"eval.tower={tower}: with backbone.split={self.backbone.split} and data.sensors={list(data.sensors)} "
                f"there are {', '.join(names) or 'no towers'}; name one of them, or remove it"
            )

    def _check_split(self, split: str) -> None:
        """Lab is made of red, green and blue as they are, from 0 to 1."""
        if isinstance(self.data, DataConfig) and len(self.data.sensors) > 1:
            raise ConfigError(
                f"backbone.split={split} is for one picture, got data.sensors={list(self.data.sensors)}; use "
                "backbone.split=sensors_lab with views.mean=[] and views.std=[]: a backbone for each, the first one "
                "split"
            )
        if not isinstance(self.views, ViewsConfig) or not isinstance(self.data, DataConfig) or self.data.channels != 3:
            found = f"data.channels={self.data.channels}" if isinstance(self.data, DataConfig) else "none"
            raise ConfigError(
                f"backbone.split={split} needs images in colour, 3 channels, got {found}; use backbone.split=none and "
                "another method than cmc"
            )
        if (self.views.mean, self.views.std) != ((0.0,) * 3, (1.0,) * 3):
            raise ConfigError(
                f"backbone.split={split} reads pixels from 0 to 1, got views.mean={list(self.views.mean)} and "
                f"views.std={list(self.views.std)}; type --set views.mean=[0,0,0] --set views.std=[1,1,1]"
            )

    def of_images(self, what: str) -> tuple[DataConfig, ViewsConfig]:
        """Its data and views. Raises ConfigError where its samples are of another kind: `what` is for images alone."""
        if isinstance(self.data, DataConfig) and isinstance(self.views, ViewsConfig):
            return self.data, self.views
        raise ConfigError(f"{what} is for images, and this recipe reads samples of kind {self.views.kind}")

    def known(self, images: int = 0) -> Known:
        """What the method has to go with; images: that are trained on, where somebody has counted them."""
        return Known(
            crops=self.views.sides,
            batch_size=self.loop.batch_size,
            accumulate=self.loop.accumulate,
            backbone=self.backbone.name,
            split=self.backbone.split,
            seed=self.seed,
            images=images,
            epochs=self.loop.epochs,
            kind=self.views.kind,
        )


def _check_reads(backbone: str, kind: str) -> None:
    """Raises ConfigError where the backbone does not read what the views make."""
    if kind == "text" and backbone not in (*TEXTS, "cpc_text"):
        own = ", ".join(OWN_TEXTS)
        raise ConfigError(f"backbone.name={backbone} reads no text; use one of {own}, or --backbone hf:/folder")
    if kind in ("image", "audio") and backbone in TEXTS:
        raise ConfigError(f"backbone.name={backbone} reads text, and the samples are of kind {kind}; add --view text")


def _check_pixels(views: ViewsConfig, data: DataConfig) -> None:
    if data.max_side < views.image_size:
        raise ConfigError(
            f"data.max_side={data.max_side} keeps fewer pixels than views.image_size={views.image_size} "
            f"needs; use --set data.max_side={2 * views.image_size}"
        )
    check_crops(data.scene_sensors(), views.crops)
    if views.mean:  # else they are measured on the images
        views.statistics(data.channels)


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
