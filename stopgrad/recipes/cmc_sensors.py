"""CMC's presets for several sensors of one scene: a backbone for each, a photograph's split into lightness and colour.

The paper has such views on NYU Depth v2 (arXiv:1906.05849): L, ab, depth, surface normals and segments, an encoder
each, L being the core; it trains on patches and judges the L encoder by the segments a decoder reads off it. More views
are better there, and the full graph is as good as the core view's. Here whole scenes are seen and what is judged is
which labels occur (`data.labels`), or classes; with eval.tower=L by what L says alone.
"""

from __future__ import annotations

from stopgrad.data import DataConfig
from stopgrad.methods.cmc import CMCConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.recipes.cmc import SMALL_CROP
from stopgrad.training.config import LoopConfig
from stopgrad.views.config import ViewsConfig


def scenes_sensors() -> Recipe:
    """Colour, depth, normals and segments of the embedded scenes, on two CPU cores in minutes. Synthetic images.

    Two minutes on two cores, one seed: kNN 57.2 % (untrained 31.7) and 91.2 linear (66.6). At the rate of cmc/scenes,
    0.48, ten losses added go too far: 33.8, and a third of the directions.
    """
    sensors = ("rgb", "depth", "normals", "segmentation:classes=5")
    return _on(DataConfig(source="scenes-v1", sensors=sensors), image_size=32, epochs=15, base_lr=0.12)


def sensors() -> Recipe:
    """A folder with rgb/ID.jpg and depth/ID.png, also below train/ and test/; the depth's 16 bits are kept.

    stopgrad train cmc/sensors --data FOLDER; other subfolders: --set data.sensors=[rgb,depth,normals]. Labels of
    segments to be probed with, as NYU Depth v2 has them: --set data.labels=labels40. On a CPU, for some
    thousand scenes: 71 epochs of NYU Depth v2 are 3 minutes on two cores (docs/sensors.md).
    """
    return _on(
        DataConfig(source="DIR", sensors=("rgb", "depth"), depth=16, max_side=256),
        image_size=64,
        epochs=60,
        base_lr=0.48,
    )


def _on(data: DataConfig, image_size: int, epochs: int, base_lr: float) -> Recipe:
    return Recipe(
        method=CMCConfig(graph="full", negatives="in_batch", temperature=0.1),
        data=data,
        views=ViewsConfig(image_size=image_size, crops=(SMALL_CROP,), mean=(), std=()),
        backbone=BackboneConfig(name="tiny", split="sensors_lab"),
        optim=OptimConfig(base_lr=base_lr, weight_decay=5e-4),
        loop=LoopConfig(epochs=epochs, batch_size=TINY_BATCH),
    )
