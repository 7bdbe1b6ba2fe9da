"""The embedded data set: exact parameters, modalities that agree with each other, a class nothing else tells."""

import colorsys
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from stopgrad.contracts import ConfigError
from stopgrad.data import scenes
from stopgrad.data.scenes.caption import colour_name
from stopgrad.data.scenes.renderer import hsv_to_rgb
from stopgrad.data.scenes.solids import SOLIDS


def index(n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(n, dtype=np.int64)


@pytest.fixture(scope="module")
def rendered() -> scenes.Rendered:
    return scenes.render(scenes.draw(7, index(120)), 48)


def test_every_class_has_a_solid_and_there_are_ten() -> None:
    assert tuple(SOLIDS) == scenes.CLASSES
    assert len(scenes.CLASSES) >= 10


@pytest.mark.parametrize("name", scenes.CLASSES)
def test_a_solid_stays_inside_its_sphere_and_is_never_nearer_than_its_formula_says(name: str) -> None:
    """Outside the unit sphere nothing is inside the solid; no formula grows faster than one along any line."""
    points = np.random.default_rng(0).normal(size=(3, 20_000))
    shell = 1.0001 * points / np.sqrt((points * points).sum(axis=0))
    assert SOLIDS[name](*shell).min() >= 0
    a, b = np.random.default_rng(1).uniform(-1, 1, size=(2, 3, 20_000))
    steps = np.sqrt(((a - b) ** 2).sum(axis=0))
    assert (np.abs(SOLIDS[name](*a) - SOLIDS[name](*b)) <= steps * 1.0001 + 1e-9).all()


def test_a_scene_is_the_same_alone_and_in_a_batch() -> None:
    together = scenes.render(scenes.draw(3, index(40)), 32)
    for i in (0, 17, 39):
        params = scenes.draw(3, np.array([i]))
        alone = scenes.render(params, 32)
        assert (params.factors() == scenes.draw(3, index(40)).factors()[i]).all()
        assert np.abs(alone.rgb[0].astype(int) - together.rgb[i].astype(int)).max() <= 1
        assert (alone.mask[0] == together.mask[i]).all()
        assert alone.caption[0] == together.caption[i]


def test_pixels_for_the_store_are_those_of_the_full_render() -> None:
    rgb, label = scenes.render_rgb(3, index(300), 32)  # more than one piece
    full = scenes.render(scenes.draw(3, np.array([5, 299])), 32)
    assert (label[[5, 299]] == full.label).all()
    assert np.abs(rgb[[5, 299]].astype(int) - full.rgb.astype(int)).max() <= 1


def test_splits_share_no_scene() -> None:
    assert scenes.TRAIN_SEED != scenes.TEST_SEED
    train, test = (scenes.draw(seed, index(2000)).factors() for seed in (scenes.TRAIN_SEED, scenes.TEST_SEED))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_the_mask_the_box_and_the_segmentation_agree(rendered: scenes.Rendered) -> None:
    assert (rendered.mask == (rendered.segmentation == 1)).all()
    assert rendered.mask.any(axis=(1, 2)).all()
    for mask, box in zip(rendered.mask, rendered.box, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_solid_is_nearer_than_all_that_is_behind_it(rendered: scenes.Rendered) -> None:
    assert np.isfinite(rendered.depth).all()
    for mask, depth, parts in zip(rendered.mask, rendered.depth, rendered.segmentation, strict=True):
        assert depth[mask].max() < depth[~mask].min()
        things = depth[(parts >= 2)]
        assert (things < 4.0).all()  # before the backdrop
        assert (depth[parts == 0] == 4.0).all()


def test_what_lies_before_another_thing_is_nearer(rendered: scenes.Rendered) -> None:
    """Depth of each thing falls with its number: the later lies before the earlier."""
    depths = [np.unique(rendered.depth[rendered.segmentation == part]) for part in (2, 3, 4)]
    assert [len(values) for values in depths] == [1, 1, 1]
    assert depths[0] > depths[1] > depths[2]


def test_normals_are_unit_vectors_and_face_the_camera_where_nothing_is(rendered: scenes.Rendered) -> None:
    assert np.abs(np.linalg.norm(rendered.normals, axis=-1) - 1).max() < 1e-5
    assert (rendered.normals[~rendered.mask] == (0, 0, 1)).all()
    assert (rendered.normals[rendered.mask][:, 2] > 0).mean() > 0.97  # a silhouette pixel may look past the edge


def test_normals_are_the_slopes_of_the_depth() -> None:
    """On a smooth solid the depth falls along x by n_x / n_z: two modalities, computed apart."""
    params = scenes.draw(11, index(400))
    rings = np.flatnonzero(params.label == scenes.CLASSES.index("ring"))[:5]
    big = scenes.render(params.take(rings), 256)
    slope = -np.gradient(big.depth.astype(np.float64), 2 / 256, axis=2)  # towards the camera, per half frame
    inner = big.mask & (big.normals[..., 2] > 0.7)
    inner[:, :, 1:-1] &= big.mask[:, :, :-2] & big.mask[:, :, 2:]
    expected = -big.normals[..., 0] / np.maximum(big.normals[..., 2], 1e-6)
    assert np.median(np.abs(slope - expected)[inner]) < 0.05


def test_captions_name_class_colour_and_texture(rendered: scenes.Rendered) -> None:
    params = scenes.draw(7, index(120))
    for i, caption in enumerate(rendered.caption):
        assert scenes.CLASSES[params.label[i]] in caption
        assert colour_name(params.colour[i, 0]) in caption.split(",")[0]
    assert len(set(rendered.caption)) > 100


@pytest.mark.parametrize(
    ("hsv", "name"),
    [
        ((0.0, 1, 1), "red"),
        ((1 / 3, 1, 1), "green"),
        ((2 / 3, 1, 1), "blue"),
        ((0.99, 1, 1), "red"),
        ((0.5, 0, 1), "white"),
    ],
)
def test_colours_are_called_what_people_call_them(hsv: tuple[float, float, float], name: str) -> None:
    assert colour_name(np.array(hsv)) == name


def test_hue_saturation_and_value_are_those_of_the_standard_library() -> None:
    hsv = np.random.default_rng(0).uniform(size=(200, 3))
    assert np.allclose(hsv_to_rgb(hsv), [colorsys.hsv_to_rgb(*row) for row in hsv])
    assert np.allclose(hsv_to_rgb(hsv + np.array([2.0, 0, 0])), hsv_to_rgb(hsv))  # a hue above one turn goes round


def test_large_pictures_averaged_down_are_the_small_ones() -> None:
    params = scenes.draw(5, index(12))
    small, large = scenes.render(params, 32), scenes.render(params, 256)
    averaged = large.rgb.reshape(12, 32, 8, 32, 8, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small.rgb).mean() < 4
    assert np.abs(large.mask.mean(axis=(1, 2)) - small.mask.mean(axis=(1, 2))).max() < 0.02
    assert np.abs(large.box / 8 - small.box).max() <= 1.5


@pytest.mark.parametrize("size", [0, 31, 257])
def test_a_size_that_is_not_offered_is_refused_with_the_sizes_that_are(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"from 32 to 256 pixels, got {size}"):
        scenes.render_rgb(0, index(1), size)
    with pytest.raises(ConfigError, match="from 32 to 256"):
        scenes.render(scenes.draw(0, index(1)), size)


def test_no_scenes_is_an_empty_batch() -> None:
    rgb, label = scenes.render_rgb(0, index(0), 32)
    assert rgb.shape == (0, 32, 32, 3)
    assert label.shape == (0,)


def test_the_classes_are_drawn_equally_often() -> None:
    counts = np.bincount(scenes.draw(0, index(10_000)).label, minlength=len(scenes.CLASSES))
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 27.9  # 9 degrees of freedom, one in a thousand


def test_a_classifier_on_everything_but_the_class_is_at_chance() -> None:
    """4,000 scenes to fit, 4,000 to score; 3 standard deviations of a coin with ten sides around 10 %."""
    params = scenes.draw(0, index(8000))
    factors = StandardScaler().fit_transform(params.factors())
    both = np.concatenate([factors, factors**2], axis=1)
    fit = LogisticRegression(max_iter=300, C=0.1).fit(both[:4000], params.label[:4000])
    accuracy = fit.score(both[4000:], params.label[4000:])
    assert abs(accuracy - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 4000)
