"""ViewMaker: a batch of images becomes the views of the recipe, by the executor that suits the device.

Threads: OpenCV's own are set to one for the whole process when a ViewMaker is made; ours take their place, each with a
run of neighbouring images. What comes out depends on neither the number of threads nor who else is in the batch; on the
gpu executor that holds up to the rounding of a matrix product.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Batch, ConfigError, Views
from stopgrad.views import cpu, gpu, wide
from stopgrad.views.config import ViewsConfig
from stopgrad.views.params import Params, draw
from stopgrad.views.samples import Samples, check

# Pixels read and written for a view, from where on a second thread helps. Below, the calls on its pixels are so short
# that two threads wait for Python's lock most of the time: of 32x32 pixels one thread makes 50,000 views/s, two 31,000.
WORTH_A_THREAD = 32_000


def pixels_a_view(drawn: list[Params], out: list[NDArray[np.float32]]) -> float:
    """Pixels of the boxes that are read and of the views `out` [B, S, S, C] that are written, mean of all."""
    read = sum(int(params.box[:, 2:].prod(axis=1).sum()) for params in drawn)
    written = sum(array.size // array.shape[3] for array in out)
    return float(read + written) / max(1, sum(map(len, drawn)))


class Buffers:
    """Arrays for views, used again once nobody reads them: fresh pages cost more than the pixels written into them.

    A tensor made by torch.from_numpy holds its array, so an array that only this list holds has no reader left.
    """

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.float32]] = []
        self.one_at_a_time = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of `shape`, its content undefined, that nobody else has. Any thread may ask."""
        with self.one_at_a_time:
            return self._take(shape)

    def _take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        free = [array for array, held in zip(self.arrays, _holders(self.arrays)) if held == _NOBODY]
        for array in free:
            if array.shape == shape:
                return array
        # Nothing fits: what lies free is of shapes gone by.
        self.arrays = [array for array in self.arrays if not any(array is other for other in free)]
        self.arrays.append(np.empty(shape, dtype=np.float32))
        return self.arrays[-1]


def _holders(arrays: list[NDArray[np.float32]]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


_NOBODY = _holders([np.empty(0, dtype=np.float32)])[0]  # counted, not written down: Pythons differ in it


class ViewMaker:
    """Views of one batch after another. Holds no state but its threads; `close` ends them.

    channels: of every image; ConfigError where mean and std do not fit them.  seed: of the run.
    threads: of the cpu and exact executors, at least 1.  normals: channels where normals begin (views.sensors).
    """

    def __init__(
        self,
        config: ViewsConfig,
        channels: int,
        seed: int,
        device: torch.device,
        threads: int,
        normals: tuple[int, ...] = (),
    ) -> None:
        if threads < 1:
            raise ConfigError(f"views: threads must be at least 1, got {threads}; use 1")
        self.config, self.channels, self.seed, self.device = config, channels, seed, device
        self.executor = config.executor
        if self.executor == "auto":
            self.executor = "gpu" if device.type == "cuda" else "cpu"
        self.mean, self.std = config.statistics(channels)
        self.tables = [cpu.tables(self.mean, self.std, crop.solarize_threshold) for crop in config.crops]
        cv2.setNumThreads(1)
        self.threads = threads
        self.normals = normals
        self.buffers = Buffers()
        self.pool = ThreadPoolExecutor(threads, "views") if threads > 1 and self.executor != "gpu" else None

    def __call__(self, batch: Batch) -> Views:
        """Crops [B, C, S, S], float32, normalised, channels last in memory, on the device. Raises DataError."""
        sizes = check(batch.samples, self.channels)
        drawn = [
            draw(crop, sizes, self.seed, batch.epoch, batch.index, view) for view, crop in enumerate(self.config.crops)
        ]
        crops = self._batched(batch, sizes, drawn) if self.executor == "gpu" else self._one_by_one(batch, drawn)
        index = torch.from_numpy(np.array(batch.index, dtype=np.int64))
        return Views(tuple(crops), index.to(self.device, non_blocking=True))

    def close(self) -> None:
        """Ends the threads; the maker can't be called any more where it had some."""
        if self.pool is not None:
            self.pool.shutdown()

    def _one_by_one(self, batch: Batch, drawn: list[Params]) -> list[Tensor]:
        count = len(batch.samples)
        buffers = [
            self.buffers.take((count, side, side, self.channels)) for side in map(self.config.side, self.config.crops)
        ]
        pool = self.pool if self.executor == "exact" or pixels_a_view(drawn, buffers) >= WORTH_A_THREAD else None
        # Four pieces a thread: crops differ in cost, and the last one should not be waited for. A piece makes all views
        # of its images, which are in the cache then.
        step = -(-count // (4 * self.threads)) if pool else max(1, count)
        parts = [slice(at, min(at + step, count)) for at in range(0, count, step)]

        def run(part: slice) -> None:
            for view, (buffer, params) in enumerate(zip(buffers, drawn, strict=True)):
                self._fill(buffer[part], batch.samples[part], params.take(part), view)

        for _ in pool.map(run, parts) if pool else map(run, parts):
            pass
        return [torch.from_numpy(buffer).permute(0, 3, 1, 2).to(self.device) for buffer in buffers]  # [B, C, S, S]

    def _fill(self, out: NDArray[np.float32], samples: Samples, params: Params, view: int) -> None:
        crop = self.config.crops[view]
        if self.executor == "cpu":
            if self.channels in (1, 3) and samples[0].dtype == np.uint8 and not self.normals:
                cpu.fill(out, samples, params, crop, self.tables[view])
            else:
                wide.fill(out, samples, params, crop, self.mean, self.std, self.normals)
            return
        from stopgrad.views import exact  # torchvision takes seconds to import, and nobody else needs it

        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        for i, sample in enumerate(samples):
            image = exact.view(sample, params, i, crop, self.config.side(crop), self.normals)  # [C, S, S]
            out[i] = (image.permute(1, 2, 0).numpy() - mean) / std

    @torch.no_grad()
    def _batched(self, batch: Batch, sizes: NDArray[np.int64], drawn: list[Params]) -> list[Tensor]:
        sides = [self.config.side(crop) for crop in self.config.crops]
        mean, std = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        crops = [
            torch.empty(len(sizes), self.channels, side, side, device=self.device).to(memory_format=torch.channels_last)
            for side in sides
        ]
        # Not in the caller's autocast: eight bits of bfloat16 would be a level of the pixels.
        with torch.autocast(self.device.type, enabled=False):
            for part in gpu.chunks(sizes, self.channels, max(sides)):
                images = gpu.stage(batch.samples[part], self.device)
                for out, params, crop, side in zip(crops, drawn, self.config.crops, sides, strict=True):
                    made = gpu.apply(images, params.take(part), crop, side, self.normals)
                    out[part] = made.sub_(mean).div_(std)
        return crops
