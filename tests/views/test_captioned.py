"""Views of images with captions: the square, the crop and the tokens, from (seed, epoch, index) alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stopgrad.contracts import Batch, ConfigError, DataError
from stopgrad.media import KINDS, medium_of, preprocess_from_dict
from stopgrad.views.captioned import CaptionedViewMaker, squared
from stopgrad.views.captioned_config import CLIP_CROP, CaptionedPreprocess, CaptionedViewsConfig
from stopgrad.views.config import CropConfig
from stopgrad.views.text_config import TextViewsConfig

pytest.importorskip("tokenizers", reason="no tokenizers: pip install 'stopgrad[text]'")
WORDS = ("a", "red", "thing", "left")
TEXT = TextViewsConfig(length=8, views=1, synonyms=0.0, deletion=0.0, swap=0.0, dropout=0.0, words=WORDS)
VIEWS = CaptionedViewsConfig(image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3, text=TEXT)


def image(height: int, width: int) -> NDArray[np.uint8]:
    """Every pixel says where it stands: red its row, green its column."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)


def sample(height: int, width: int, text: str = "a red thing") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return image(height, width), np.frombuffer(text.encode(), np.uint8)


def preprocess(views: CaptionedViewsConfig = VIEWS) -> CaptionedPreprocess:
    found = medium_of(views).preprocess(KINDS["captioned"].data(), views)
    assert isinstance(found, CaptionedPreprocess)
    return found


def made(samples: list[Any], epoch: int = 0, index: tuple[int, ...] | None = None, **changes: Any) -> Any:
    views = replace(VIEWS, **changes)
    maker = CaptionedViewMaker(views, preprocess(views), 3, torch.device("cpu"), 1)
    chosen = np.array(index or range(len(samples)), np.int64)
    try:
        return maker(Batch(samples, chosen, epoch))
    finally:
        maker.close()


def test_a_view_is_a_crop_and_the_ids_of_the_caption() -> None:
    crop, ids = made([sample(8, 8), sample(8, 8, "left left unheard")]).crops
    assert crop.shape == (2, 3, 8, 8)
    assert ids.dtype == torch.int64
    # start, words, end; 1 is unknown, 0 fills up
    assert ids.tolist() == [[2, 4, 5, 6, 3, 0, 0, 0], [2, 7, 7, 1, 3, 0, 0, 0]]
    # a square image is taken whole, as it is
    torch.testing.assert_close(crop[0, 0] * 255, torch.arange(8.0)[:, None].expand(8, 8), atol=0.01, rtol=0)


def test_the_square_is_as_large_as_the_shorter_side_and_stands_anywhere() -> None:
    lefts = set()
    for epoch in range(40):
        (square,) = squared([image(4, 7)], seed=1, epoch=epoch, index=np.array([5]))
        assert square.shape == (4, 4, 3)
        assert square[0, 0, 0] == 0
        lefts.add(int(square[0, 0, 1]))
    assert lefts == {0, 1, 2, 3}
    # and so does what the maker cuts: without the square, RandomResizedCrop would take the middle each time
    begins = {round(made([sample(8, 24)], epoch=epoch).crops[0][0, 1, 0, 0].item() * 255) for epoch in range(12)}
    assert len(begins) > 3
    (tall,) = squared([image(9, 4)], seed=1, epoch=0, index=np.array([5]))
    assert tall.shape == (4, 4, 3)


def test_a_pair_has_the_same_views_in_any_batch_and_others_in_another_epoch() -> None:
    samples = [sample(6, 12), sample(12, 6), sample(9, 9)]
    changes = {"crops": (replace(CLIP_CROP, scale=(0.3, 1.0)),), "text": replace(TEXT, deletion=0.5)}
    crops, ids = made(samples, index=(4, 7, 9), **changes).crops
    alone, own = made(samples[1:2], index=(7,), **changes).crops
    assert torch.equal(alone[0], crops[1])
    assert torch.equal(own[0], ids[1])
    later, _ = made(samples, epoch=1, index=(4, 7, 9), **changes).crops
    assert not torch.equal(later, crops)


def test_settings_of_the_crop_and_of_the_text_are_those_of_the_views() -> None:
    whole, ids = made([sample(9, 9)]).crops
    flipped, _ = made([sample(9, 9)], crops=(replace(CLIP_CROP, hflip=1.0),)).crops
    torch.testing.assert_close(flipped, whole.flip(3), atol=0.01, rtol=0)
    _, dropped = made([sample(9, 9)], text=replace(TEXT, dropout=1.0)).crops
    assert dropped.tolist() == [[2, 1, 1, 1, 3, 0, 0, 0]]
    assert ids.tolist() != dropped.tolist()


def test_without_chance_the_image_is_read_and_its_caption_by_the_other_tower() -> None:
    own = preprocess()
    clean = medium_of(own).clean([sample(8, 16)], own)
    assert clean.shape == (1, 3, 8, 8)
    assert clean[0, 1, 0, 0].item() * 255 == pytest.approx(4)  # the middle square
    assert medium_of(own).input(own) == (3, 8)
    assert preprocess(replace(VIEWS, image_size=224)).image.crop_fraction == 1  # the shorter side becomes the crop's
    assert medium_of(own.text).input(own.text) == (len(WORDS) + 4, 8)
    for tensor in (clean, made([sample(8, 8)]).crops[1]):
        seen = medium_of(own).pictures(tensor, own, 24)
        assert seen.shape == (1, 3, 24, 24)
        assert 0 <= seen.min() <= seen.max() <= 1


def test_each_tower_has_a_preprocessing_that_is_written_down_and_no_file_has_both() -> None:
    own = preprocess()
    for one in (own.image, own.text):
        assert preprocess_from_dict(one.as_dict()) == one
    assert own.as_dict()["kind"] == "captioned"
    with pytest.raises(ConfigError, match="read by two encoders, and each has its own"):
        preprocess_from_dict(own.as_dict())


def test_samples_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(DataError, match=r"sample 0 of the batch is no image with a caption but ndarray"):
        made([image(8, 8)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": ()}, r"views\.crops: an image with a caption has 1 crop.*got 0"),
        ({"crops": (CropConfig(), CropConfig())}, r"has 1 crop.*got 2"),
        ({"text": replace(TEXT, views=2)}, r"views\.text\.views must be 1"),
        ({"kind": "image"}, r"views\.kind: must be captioned"),
        ({"image_size": 2}, r"views\.image_size must be"),
        ({"std": (0.0,) * 3}, r"views\.std must be above 0"),
    ],
    ids=str,
)
def test_settings_that_can_not_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(VIEWS, **changes)
