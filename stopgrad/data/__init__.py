"""Where images come from: a folder or the embedded scenes, decoded once into a packed store, read in a fixed order.

    data = open_data(DataConfig(source="~/photos"), image_size=64)
    loader = Loader(data.train, batch_size=256, seed=0)
    batch = loader.batch(step)            # samples as stored, their index, the epoch; never labels

Letters in shapes: B batch, N images of a split or a store, M files, H W pixels, C channels (1 or 3).
"""

from stopgrad.data.folder import BadFile, BadFilesError, write_bad_files
from stopgrad.data.loader import Loader, Subset, hold_out
from stopgrad.data.sources import SOURCES, Data, DataConfig, open_data

__all__ = [
    "SOURCES",
    "BadFile",
    "BadFilesError",
    "Data",
    "DataConfig",
    "Loader",
    "Subset",
    "hold_out",
    "open_data",
    "write_bad_files",
]
