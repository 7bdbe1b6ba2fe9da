"""Scenes to pixels and their ground truth: sphere tracing, one light, in numpy.

Rays are parallel to z (no perspective), two by two a pixel. All scenes of one class are traced together, as a flat
list of the rays that meet the solid's bounding sphere, element by element, so that a scene's pixels do not depend on
what else is in the batch. In float64, since at the edge of a solid a ray hits or misses: a difference in the last bit
of a sine, from one machine to the next, must not move a ray across. Textures and clutter have soft edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError
from stopgrad.data.scenes.caption import captions
from stopgrad.data.scenes.params import CLASSES, CLUTTER, SceneParams, draw
from stopgrad.data.scenes.solids import SOLIDS, Array, Solid

SMALLEST, LARGEST = 32, 256  # pixels
_STEPS = 32
_NEAR = 2e-3  # radii: nearer than this is on the surface
_CAMERA = 2.0  # half frames from the solid's centre to the plane the depth is measured from
BACKDROP = 4.0  # depth of the background; clutter lies before it


@dataclass(frozen=True, slots=True)
class Rendered:
    """B scenes of S x S pixels."""

    rgb: NDArray[np.uint8]  # [B, S, S, 3]
    label: NDArray[np.int64]  # [B]
    mask: NDArray[np.bool_]  # [B, S, S], where the solid covers at least half the pixel
    box: NDArray[np.float32]  # [B, 4], x0, y0, x1, y1 of the mask in pixels; x1 and y1 are the first ones outside
    depth: NDArray[np.float32]  # [B, S, S], half frames from the camera's plane
    normals: NDArray[np.float32]  # [B, S, S, 3], unit length, x right, y up, z to the camera
    segmentation: NDArray[np.uint8]  # [B, S, S], 0 background, 1 the solid, 2 and up the things behind it
    caption: list[str]


@dataclass(frozen=True, slots=True)
class _Hits:
    """Rays that met a solid: P of them, over all scenes of a batch."""

    scene: NDArray[np.int64]  # [P]
    pixel: NDArray[np.int64]  # [P], row * S + column
    depth: Array  # [P]
    normal: Array  # [3, P]
    colour: Array  # [3, P]


def render(params: SceneParams, size: int) -> Rendered:
    """The scenes at `size` pixels a side, 32 to 256."""
    _check(size)
    count = len(params)
    rgb, clutter = _background(params, size)  # [B, S * S, 3], [B, S * S]
    cover = np.zeros(count * size * size)
    paint, facing, distance = np.zeros((3, len(cover))), np.zeros((3, len(cover))), np.zeros(len(cover))
    for hits in _trace(params, size):
        where = hits.scene * (size * size) + hits.pixel
        cover += np.bincount(where, minlength=len(cover))
        distance += np.bincount(where, hits.depth, len(cover))
        for axis in range(3):
            paint[axis] += np.bincount(where, hits.colour[axis], len(cover))
            facing[axis] += np.bincount(where, hits.normal[axis], len(cover))
    mask = cover >= 2
    rgb = rgb.reshape(-1, 3) * (1 - cover[:, None] / 4) + paint.T / 4
    depth = np.where(mask, distance / np.maximum(cover, 1), _clutter_depth(clutter.reshape(-1)))
    normals = np.where(mask[:, None], facing.T, (0.0, 0.0, 1.0))
    normals /= np.sqrt((normals * normals).sum(axis=1, keepdims=True))
    square = (count, size, size)
    solid = mask.reshape(square)
    return Rendered(
        rgb=np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8).reshape(*square, 3),
        label=params.label,
        mask=solid,
        box=_boxes(solid),
        depth=depth.astype(np.float32).reshape(square),
        normals=normals.astype(np.float32).reshape(*square, 3),
        segmentation=np.where(mask, 1, clutter.reshape(-1)).astype(np.uint8).reshape(square),
        caption=captions(params),
    )


def render_rgb(seed: int, index: NDArray[np.int64], size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels [B, S, S, 3] and labels [B] of scenes `index` of `seed`, in pieces that fit a cache."""
    _check(size)
    index = np.asarray(index, dtype=np.int64)
    rgb, label = np.empty((len(index), size, size, 3), np.uint8), np.empty(len(index), np.int64)
    piece = max(1, 256 * 32 * 32 // (size * size))
    for start in range(0, len(index), piece):
        here = slice(start, start + piece)
        done = render(draw(seed, index[here]), size)
        rgb[here], label[here] = done.rgb, done.label
    return rgb, label


def _check(size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"scenes: size must be from {SMALLEST} to {LARGEST} pixels, got {size}; the demo uses 32")


# --- the solid --------------------------------------------------------------------------------------------------------


def _trace(params: SceneParams, size: int) -> list[_Hits]:
    """The rays that met a solid, class by class."""
    found = []
    for label, name in enumerate(CLASSES):
        members = np.flatnonzero(params.label == label)
        if len(members):
            found.append(_trace_class(params.take(members), members, SOLIDS[name], size))
    return found


def _trace_class(params: SceneParams, members: NDArray[np.int64], solid: Solid, size: int) -> _Hits:
    line = (np.arange(2 * size) + 0.5) / size - 1  # [2S], two samples a pixel
    across = (line[None, :] - params.centre[:, :1]) / params.radius[:, None]  # [M, 2S], in radii
    down = (-line[None, :] - params.centre[:, 1:]) / params.radius[:, None]
    room = 1 - across[:, None, :] ** 2 - down[:, :, None] ** 2  # [M, 2S, 2S]
    scene, row, column = np.nonzero(room > 0)  # [P] each
    x, y = across[scene, column], down[scene, row]
    entry = np.sqrt(room[scene, row, column])
    turn = _rotations(params.rotation)  # [M, 3, 3], solid to camera
    basis = turn[scene].transpose(1, 2, 0)  # [3, 3, P]
    # The ray in the solid's own axes: start on the bounding sphere, run along -z of the camera.
    start = [x * basis[0, i] + y * basis[1, i] + entry * basis[2, i] for i in range(3)]
    run = [-basis[2, i] for i in range(3)]
    travelled = _march(solid, start, run, 2 * entry)
    hit = np.flatnonzero(travelled <= 2 * entry)
    scene, row, column, travelled, basis = scene[hit], row[hit], column[hit], travelled[hit], basis[:, :, hit]
    local = np.stack([start[i][hit] + travelled * run[i][hit] for i in range(3)])  # [3, P]
    normal = _normals(solid, local)
    normal = np.stack([sum(basis[i, j] * normal[j] for j in range(3)) for i in range(3)])  # [3, P], camera axes
    depth = _CAMERA - (entry[hit] - travelled) * params.radius[scene]
    colour = _shade(params, scene, local, normal)
    return _Hits(members[scene], (row // 2) * size + column // 2, depth, normal, colour)


def _march(solid: Solid, start: list[Array], run: list[Array], longest: Array) -> Array:
    """Sphere tracing: how far each ray goes until the surface, [P]; beyond `longest` where it misses."""
    travelled = np.zeros_like(longest)
    alive = np.arange(len(longest))
    here, reach, (x, y, z), (dx, dy, dz) = travelled.copy(), longest, start, run
    for _ in range(_STEPS):
        distance = solid(x + here * dx, y + here * dy, z + here * dz)
        moving = distance > _NEAR
        here = here + np.where(moving, distance, 0)
        going = moving & (here <= reach)
        travelled[alive[~going]] = here[~going]
        if not going.any():
            return travelled
        alive, here, reach = alive[going], here[going], reach[going]
        x, y, z, dx, dy, dz = (values[going] for values in (x, y, z, dx, dy, dz))
    travelled[alive] = np.inf  # still grazing: a miss
    return travelled


def _normals(solid: Solid, point: Array) -> Array:
    """Unit gradients [3, P] by differences over a tetrahedron, wide enough to round the sharpest edges a little."""
    gradient = np.zeros_like(point)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        distance = solid(*(point[i] + 0.02 * corner[i] for i in range(3)))
        for i in range(3):
            gradient[i] += corner[i] * distance
    length = np.sqrt((gradient * gradient).sum(axis=0))
    unit: Array = gradient / np.maximum(length, 1e-9)
    return unit


def _shade(params: SceneParams, scene: NDArray[np.int64], local: Array, normal: Array) -> Array:
    """[3, P]: texture times light, and a highlight."""
    base, second = (hsv_to_rgb(params.colour[:, i])[scene].T for i in range(2))  # [3, P]
    share = _texture(params, scene, local)
    albedo = base + (second - base) * share
    azimuth, elevation = np.deg2rad(params.light[:, 0]), np.deg2rad(params.light[:, 1])
    light = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    half = light + np.array([[0.0], [0.0], [1.0]])
    half /= np.sqrt((half * half).sum(axis=0))
    ambient, specular, shininess = params.light[scene, 2:].T
    diffuse = np.maximum((normal * light[:, scene]).sum(axis=0), 0)
    facing = np.maximum(normal[2], 0)
    glint = np.maximum((normal * half[:, scene]).sum(axis=0), 0) ** shininess
    lit = ambient * (0.5 + 0.5 * facing) + (1 - ambient) * diffuse
    colour: Array = albedo * lit + specular * glint
    return colour


def _texture(params: SceneParams, scene: NDArray[np.int64], local: Array) -> Array:
    """[P] in [0, 1]: how much of the second colour, in the solid's own axes, with soft edges."""
    share = np.zeros(len(scene))
    kind = params.texture[scene]
    for number, pattern in enumerate((_stripes, _checks, _spots, _marble), start=1):
        which = np.flatnonzero(kind == number)
        frequency, angle, *phases = params.pattern[scene[which]].T
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        x, y, z = local[:, which]
        x, y = cosine * x - sine * y, sine * x + cosine * y
        wave = pattern(*(frequency * v + 2 * np.pi * phase for v, phase in zip((x, y, z), phases, strict=True)))
        share[which] = np.clip(0.5 + 1.5 * wave, 0, 1)
    return share


def _stripes(x: Array, y: Array, z: Array) -> Array:
    return np.sin(x)


def _checks(x: Array, y: Array, z: Array) -> Array:
    return 1.5 * np.sin(x) * np.sin(y)


def _spots(x: Array, y: Array, z: Array) -> Array:
    return (np.cos(x) + np.cos(y) + np.cos(z)) / 2 - 0.4


def _marble(x: Array, y: Array, z: Array) -> Array:
    return np.sin(0.6 * x + 1.2 * np.sin(0.5 * y) + 1.2 * np.sin(0.6 * z))


def _rotations(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M, 3] yaw, pitch, roll -> [M, 3, 3]: about y, then x, then z."""
    (a, b, c), (d, e, f) = np.cos(np.deg2rad(degrees)).T, np.sin(np.deg2rad(degrees)).T
    rows = [
        [c * a - f * e * d, -f * b, c * d + f * e * a],
        [f * a + c * e * d, c * b, f * d - c * e * a],
        [-b * d, e, b * a],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


# --- what is behind it ------------------------------------------------------------------------------------------------


def _background(params: SceneParams, size: int) -> tuple[Array, NDArray[np.int64]]:
    """What is behind the solid: colours [B, S * S, 3], and which thing is seen there [B, S * S], 0 or 2 and up."""
    line = (np.arange(size) + 0.5) * (2 / size) - 1  # [S]
    x, y = np.tile(line, size)[None], np.repeat(-line, size)[None]  # [1, S * S]
    angle = np.deg2rad(params.gradient)[:, None]
    share = 0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    near, far = params.background[:, :1], params.background[:, 1:]  # [B, 1, 3]
    rgb = hsv_to_rgb(near + (far - near) * share[..., None])  # [B, S * S, 3]
    uneven = np.zeros_like(share)
    for k in range(params.waves.shape[1]):
        u, v, phase, amplitude = params.waves[:, k].T[..., None]
        uneven += amplitude * np.sin(2 * np.pi * (u * x / 2 + v * y / 2 + phase))
    rgb += uneven[..., None]
    seen = np.zeros(share.shape, dtype=np.int64)
    for k in range(CLUTTER):
        cover = np.clip(0.5 - _flat(params.clutter[:, k], params.clutter_shape[:, k], x, y) * size / 2, 0, 1)
        rgb += (hsv_to_rgb(params.clutter_colour[:, k])[:, None] - rgb) * cover[..., None]
        seen[cover >= 0.5] = 2 + k
    return rgb, seen


def _flat(kind: NDArray[np.int64], shape: NDArray[np.float64], x: Array, y: Array) -> Array:
    """[B, S * S]: distance in the plane to a disc, a box or a bar; far away for none."""
    cx, cy, size, angle = shape.T[..., None]
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    u, v = (x - cx) * cosine + (y - cy) * sine, (y - cy) * cosine - (x - cx) * sine
    disc = np.hypot(u, v) - size
    box = np.maximum(np.abs(u), np.abs(v)) - 0.85 * size
    bar = np.maximum(np.abs(u) - 2 * size, np.abs(v) - 0.3 * size)
    return np.choose(kind[:, None], [np.full_like(disc, 9.0), disc, box, bar])


def _clutter_depth(seen: NDArray[np.int64]) -> Array:
    """Things lie one before the other, all behind the solid and before the backdrop."""
    return np.where(seen == 0, BACKDROP, BACKDROP - 0.2 * (seen - 1))


def _boxes(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    sides = []
    for axis in (1, 2):  # any over rows gives columns, and the other way round
        line = np.asarray(mask.any(axis=axis))  # [B, S]
        first, last = line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)
        sides.append((first, last))
    (x0, x1), (y0, y1) = sides
    return np.stack([x0, y0, x1, y1], axis=1).astype(np.float32)


def hsv_to_rgb(hsv: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 3] in [0, 1] to [..., 3] in [0, 1]."""
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    turns = np.stack([(n + hue * 6) % 6 for n in (5, 3, 1)], axis=-1)
    rgb: NDArray[np.float64] = value[..., None] * (
        1 - saturation[..., None] * np.clip(np.minimum(turns, 4 - turns), 0, 1)
    )
    return rgb
