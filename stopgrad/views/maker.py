"""ViewMaker: a batch of images becomes the views of the recipe, by the executor that suits the device.

Threads: OpenCV's own are set to one for the whole process when a ViewMaker is made; ours take their place, each with a
run of neighbouring images. What comes out depends on neither the number of threads nor who else is in the batch; on the
gpu executor that holds up to the rounding of a matrix product.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Batch, ConfigError, Views
from stopgrad.views import cpu, exact, gpu, wide
from stopgrad.views.config import ViewsConfig
from stopgrad.views.params import Params, draw
from stopgrad.views.samples import Samples, check


class ViewMaker:
    """Views of one batch after another. Holds no state but its threads; `close` ends them.

    channels: of every image; ConfigError where mean and std do not fit them.  seed: of the run.
    threads: of the cpu and exact executors, at least 1.
    """

    def __init__(self, config: ViewsConfig, channels: int, seed: int, device: torch.device, threads: int) -> None:
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
            np.empty((count, side, side, self.channels), dtype=np.float32)
            for side in map(self.config.side, self.config.crops)
        ]
        # Four pieces a thread: crops differ in cost, and the last one should not be waited for.
        step = -(-count // (4 * self.threads)) if self.pool else max(1, count)
        jobs = [(view, slice(at, min(at + step, count))) for view in range(len(drawn)) for at in range(0, count, step)]

        def run(job: tuple[int, slice]) -> None:
            view, part = job
            self._fill(buffers[view][part], batch.samples[part], drawn[view].take(part), view)

        for _ in self.pool.map(run, jobs) if self.pool else map(run, jobs):
            pass
        return [torch.from_numpy(buffer).permute(0, 3, 1, 2).to(self.device) for buffer in buffers]  # [B, C, S, S]

    def _fill(self, out: NDArray[np.float32], samples: Samples, params: Params, view: int) -> None:
        crop = self.config.crops[view]
        if self.executor == "cpu":
            if self.channels in (1, 3) and samples[0].dtype == np.uint8:
                cpu.fill(out, samples, params, crop, self.tables[view])
            else:
                wide.fill(out, samples, params, crop, self.mean, self.std)
            return
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        for i, sample in enumerate(samples):
            image = exact.view(sample, params, i, crop, self.config.side(crop)).permute(1, 2, 0).numpy()  # [S, S, C]
            out[i] = (image - mean) / std

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
                    out[part] = gpu.apply(images, params.take(part), crop, side).sub_(mean).div_(std)
        return crops
