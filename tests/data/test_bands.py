"""`.npy` and TIFF of many bands: what comes out, and the reason where nothing does. No file is trusted."""

import contextlib
import io
import struct
import warnings
import zlib
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from stopgrad.data.bands import bounded
from stopgrad.data.decode import BadImageError, DecodeSettings, decode
from stopgrad.data.folder import FORMAT_OF, sniff

RANDOM = np.random.default_rng(0)


def wanted(channels: int = 5, depth: Any = 16, max_side: int = 512, **values: Any) -> DecodeSettings:
    return DecodeSettings(channels, max_side, values.get("min_side", 8), values.get("max_megapixels", 50), depth)


def bands(count: int, dtype: Any = np.uint16, height: int = 20, width: int = 30) -> NDArray[Any]:
    return RANDOM.integers(0, 256 if dtype == np.uint8 else 60000, (height, width, count)).astype(dtype)


def npy(values: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values, **options)
    return out.getvalue()


def header(text: str, version: int = 1) -> bytes:
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def tiff(
    pages: list[NDArray[Any]],
    *,
    compression: int = 1,
    predictor: int = 1,
    planar: bool = False,
    tile: int = 0,
    order: Literal["<", ">"] = "<",
    tags: dict[int, int] | None = None,
) -> bytes:
    """A TIFF of [H, W, B] arrays: strips of 7 rows or square tiles, a picture after the other."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4
    for values in pages:
        height, width, samples = values.shape
        planes = [values[:, :, i : i + 1] for i in range(samples)] if planar else [values]
        across, down = (tile, tile) if tile else (width, 7)
        offsets, counts = [], []
        for plane in planes:
            for top in range(0, height, down):
                for left in range(0, width, across):
                    piece = plane[top : top + down, left : left + across]
                    if tile:
                        piece = np.pad(piece, ((0, down - piece.shape[0]), (0, across - piece.shape[1]), (0, 0)))
                    if predictor == 2:
                        piece = np.diff(piece, axis=1, prepend=piece[:, :1] * 0)
                    raw = piece.astype(values.dtype.newbyteorder(order)).tobytes()
                    packed = zlib.compress(raw) if compression == 8 else raw
                    offsets.append(len(out))
                    counts.append(len(packed))
                    out += packed + bytes(len(packed) % 2)
        kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
        known: dict[int, list[int]] = {
            256: [width], 257: [height], 258: [values.dtype.itemsize * 8] * samples, 259: [compression], 262: [1],
            277: [samples], 284: [2 if planar else 1], 317: [predictor], 339: [kind] * samples,
        }  # fmt: skip
        known |= (
            {322: [tile], 323: [tile], 324: offsets, 325: counts} if tile else {273: offsets, 278: [7], 279: counts}
        )
        known |= {tag: [value] for tag, value in (tags or {}).items()}
        fields = b""
        for tag, items in sorted(known.items()):
            data = struct.pack(f"{order}{len(items)}L", *items)
            if len(items) > 1:
                data, at = struct.pack(f"{order}L", len(out)), data
                out += at
            fields += struct.pack(f"{order}HHL", tag, 4, len(items)) + data
        struct.pack_into(f"{order}L", out, link, len(out))
        out += struct.pack(f"{order}H", len(known)) + fields
        link = len(out)
        out += bytes(4)
    return bytes(out)


def reason(data: bytes, how: DecodeSettings) -> str:
    with pytest.raises(BadImageError) as bad:
        decode(data, how)
    return str(bad.value)


# --- npy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_bands_last_and_bands_first_give_the_same_image(order: Any, byte_order: str) -> None:
    values = bands(5)
    stored = values.astype(f"{byte_order}u2")
    for array in (stored, stored.transpose(2, 0, 1)):
        done = decode(npy(np.asarray(array, order=order)), wanted(), b".npy")
        assert done.pixels.dtype == np.uint16
        assert done.pixels.flags.c_contiguous
        assert (done.pixels == values).all()
        assert done.notes == ()


def test_where_both_axes_fit_the_bands_are_the_last() -> None:
    values = bands(9, height=9, width=20)  # [9, 20, 9]
    assert (decode(npy(values), wanted(9)).pixels == values).all()


def test_gray_and_colour_are_converted_and_other_numbers_are_refused_with_the_fix() -> None:
    gray, colour = bands(1, np.uint8), bands(3, np.uint8)
    for array in (gray, gray[:, :, 0], gray.transpose(2, 0, 1)):
        assert (decode(npy(array), wanted(3, 8)).pixels == gray.repeat(3, axis=2)).all()
    luma = np.asarray(Image.fromarray(colour).convert("L")).astype(int)[:, :, None]
    for array in (colour, colour.transpose(2, 0, 1)):
        assert np.abs(decode(npy(array), wanted(1, 8)).pixels - luma).max() <= 1
    for channels in (1, 3, 4, 6):
        said = reason(npy(bands(5)), wanted(channels))
        assert said == f"has 5 bands (shape [20, 30, 5]), data.channels={channels}; type --set data.channels=5"
    assert reason(npy(gray[:, :, 0]), wanted(5)) == "has 1 band, data.channels=5; type --set data.channels=1"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16, np.int32, np.uint32, np.int8])
@pytest.mark.parametrize("depth", [8, 16])
def test_other_numbers_are_scaled_by_the_range_of_the_file(dtype: Any, depth: int) -> None:
    values = np.linspace(-100, 100, 20 * 30 * 2).reshape(20, 30, 2).astype(dtype)
    if np.dtype(dtype).kind == "u":
        values += np.array(50, dtype)
    done = decode(npy(values), wanted(2, depth))
    white = 2**depth - 1
    low, high = float(values.min()), float(values.max())
    assert done.pixels.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert done.pixels == pytest.approx((values.astype(float) - low) / (high - low) * white, abs=0.51)
    assert done.notes == ("float",)


def test_what_is_not_finite_is_black_and_nothing_finite_is_bad() -> None:
    values = np.ones((9, 9, 2), np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, 3
    done = decode(npy(values), wanted(2)).pixels
    assert done[0, :3, 0].tolist() == [0, 0, 65535]
    assert reason(npy(np.full((9, 9), np.nan)), wanted(3)) == "no finite pixel"
    assert "too far apart" in reason(npy(np.linspace(-1, 1, 81).reshape(9, 9) * 1.7e308), wanted(3))


def test_masks_become_black_and_white() -> None:
    values = bands(1, np.uint8)[:, :, 0] > 99
    assert (decode(npy(values), wanted(1, 8)).pixels[:, :, 0] == values * 255).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (npy(np.array([{"a": 1}] * 100), allow_pickle=True), "NPY of Python objects, which are never opened"),
        (npy(np.zeros((9, 9), np.complex64)), "NPY of complex64; needed are uint8, uint16"),
        (npy(np.zeros((9, 9), "U4")), "NPY of str128; needed are"),
        (npy(np.zeros((9, 9), [("a", "u1")])), "NPY of void8; needed are"),
        (npy(np.zeros(100, np.uint8)), r"NPY of shape [100]; needed is [H, W], [H, W, C] or [C, H, W]"),
        (npy(np.zeros((2, 3, 9, 9), np.uint8)), "NPY of shape [2, 3, 9, 9]"),
        (npy(np.zeros((0, 9, 5), np.uint8)), "NPY of shape [0, 9, 5]"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (-20, 30, 5)}\n"), "NPY of shape [-20, 30, 5]"),
        (header("__import__('os').system('true')\n"), "corrupt NPY header"),
        (header("(" * 9000), "corrupt NPY header"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (99999, 99999, 5)}\n"), "Mpx > limit 50 Mpx"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (7000, 7000, 5)}\n"), "unpacks to 1,960 MB, more"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (40, 30, 5)}\n", 2), "truncated NPY (0% of"),
        (npy(bands(5))[:-3000], "truncated NPY (50% of its numbers are there)"),
        (npy(bands(5, height=7)), "shorter side below 8 (data.min_side)"),
        (b"\x93NUMPY", "corrupt NPY header"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "NPY"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(data: bytes, said: str) -> None:
    assert said in reason(data, wanted())


@given(st.binary(max_size=200), st.integers(0, 160))
@settings(max_examples=100, deadline=None)
def test_no_damage_raises_anything_but_a_reason(noise: bytes, at: int) -> None:
    for whole in (npy(bands(2)), tiff([bands(2)], compression=8), tiff([bands(1)] * 2)):
        data = whole[:at] + noise + whole[at + len(noise) :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(BadImageError):
                assert decode(data, wanted(2)).pixels.shape[2] == 2


def test_npy_is_known_by_its_first_bytes_and_its_extension() -> None:
    assert sniff(npy(bands(2))[:32]) == "NPY"
    assert FORMAT_OF[b".npy"] == "NPY"
    assert decode(npy(bands(5)), wanted(), b".tif").notes == ("extension",)


# --- TIFF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"order": ">"},
        {"planar": True},
        {"compression": 8},
        {"compression": 8, "predictor": 2},
        {"compression": 8, "predictor": 2, "tile": 16, "order": ">"},
        {"planar": True, "tile": 16, "compression": 8, "predictor": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_layout_of_bands_is_read(form: dict[str, Any], dtype: Any) -> None:
    for count in (2, 5, 13):
        values = bands(count, dtype)
        done = decode(tiff([values], **form), wanted(count, 8 if dtype == np.uint8 else 16), b".tif")
        assert done.pixels.dtype == dtype
        assert (done.pixels == values).all()
        assert done.notes == ()


def test_floats_are_scaled_as_npy_has_them() -> None:
    values = (bands(5) / 7).astype(np.float32)
    done = decode(tiff([values], order=">"), wanted())
    assert (done.pixels == decode(npy(values), wanted()).pixels).all()
    assert done.notes == ("float",)


def test_what_libtiff_packs_is_unpacked() -> None:
    values = bands(4, np.uint16)
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, 5]  # LZW, with the differences of OpenCV's writer
    packed = cv2.imencode(".tif", values[:, :, [2, 1, 0, 3]], flags)[1].tobytes()
    assert (decode(packed, wanted(4)).pixels == values).all()


def test_a_page_a_band() -> None:
    values = bands(6)
    pages = [values[:, :, i : i + 1] for i in range(6)]
    assert (decode(tiff(pages), wanted(6)).pixels == values).all()
    assert reason(tiff(pages), wanted(5)) == "has 1 band and 6 pages, data.channels=5; type --set data.channels=1"
    assert "pages that differ" in reason(tiff([*pages[:5], bands(1, np.uint8)]), wanted(6))
    first = decode(tiff(pages), wanted(3))
    assert first.notes == ()
    assert (first.pixels == values[:, :, :1].repeat(3, axis=2)).all()


def test_sixteen_bits_are_kept_in_gray_and_colour() -> None:
    for count in (1, 3):
        values = bands(count)
        assert (decode(tiff([values]), wanted(count)).pixels == values).all()
        png = cv2.imencode(".png", values[:, :, ::-1] if count == 3 else values)[1].tobytes()
        assert (decode(png, wanted(count)).pixels == values).all()
    gray = bands(1)
    assert (decode(tiff([gray]), wanted(3)).pixels == gray.repeat(3, axis=2)).all()
    eight = decode(tiff([gray]), wanted(1, 8))
    assert eight.pixels == pytest.approx(gray / 257, abs=0.51)
    assert eight.notes == ("scaled 16-bit",)


def test_eight_bits_are_spread_over_sixteen_and_told() -> None:
    values = bands(3, np.uint8)
    for data in (npy(values), cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()):
        done = decode(data, wanted(3))
        assert (done.pixels == values.astype(np.uint16) * 257).all()
        assert done.notes == ("scaled 8-bit",)
    jpeg = cv2.imencode(".jpg", values)[1].tobytes()
    assert (decode(jpeg, wanted(3)).pixels == decode(jpeg, wanted(3, 8)).pixels * np.uint16(257)).all()


def test_transparency_is_a_band_where_four_are_wanted_and_laid_on_white_where_three() -> None:
    values = bands(4)
    png = cv2.imencode(".png", values[:, :, [2, 1, 0, 3]])[1].tobytes()
    assert (decode(png, wanted(4)).pixels == values).all()
    share = values[:, :, 3:] / 65535
    flat = decode(png, wanted(3))
    assert flat.pixels == pytest.approx(values[:, :, :3] * share + 65535 * (1 - share), abs=0.51)
    assert flat.notes == ("alpha",)
    eight = cv2.imencode(".png", bands(4, np.uint8))[1].tobytes()
    assert decode(eight, wanted(4, 8)).pixels.shape == (20, 30, 4)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".tif"])
def test_a_photograph_is_no_image_of_five_bands(kind: str) -> None:
    data = cv2.imencode(kind, bands(3, np.uint8))[1].tobytes()
    assert reason(data, wanted(5)) == "has 3 bands, data.channels=5; type --set data.channels=3"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_five_bands_are_no_photograph(channels: int) -> None:
    assert reason(tiff([bands(5)]), wanted(channels, 8)).startswith(f"has 5 bands, data.channels={channels}; type")


def test_a_turned_file_is_turned_back_and_white_is_zero_is_inverted() -> None:
    values = bands(5)
    assert (decode(tiff([values], tags={274: 3}), wanted()).pixels == values[::-1, ::-1]).all()
    assert (decode(tiff([values], tags={262: 0}), wanted()).pixels == 65535 - values).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff([bands(5)], tags={256: 200_000, 257: 200_000}), "40000 Mpx > limit"),
        (tiff([bands(5)], tags={257: 40}), "corrupt TIFF (3 strips or tiles of 6)"),
        (tiff([bands(5)], tile=16, tags={322: 0}), "corrupt TIFF (strips or tiles without a size)"),
        (tiff([bands(5)], tile=16, tags={322: 60_000, 323: 60_000}), "unpacks to 36,000 MB, more than"),
        (tiff([bands(5)], compression=8, tags={273: 9}), "corrupt TIFF"),
        (tiff([bands(5)], tags={259: 7}), "TIFF of compression 7, which is not read for bands"),
        (tiff([bands(5)], tags={259: 5}), "corrupt TIFF"),
        (tiff([bands(5)], tags={317: 3}), "TIFF with predictor 3, which is not read"),
        (tiff([bands(5)])[:2000], "corrupt TIFF"),
        (tiff([bands(5, height=7)]), "shorter side below 8"),
        (b"II*\0" + bytes(4), "corrupt TIFF"),
        (b"II*\0" + (8).to_bytes(4, "little") + bytes(200), "corrupt TIFF"),
    ],
)
def test_a_damaged_tiff_says_why(data: bytes, said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert said in reason(data, wanted())


def test_pages_that_lead_in_a_circle_end() -> None:
    data = bytearray(tiff([bands(5)]))
    data[-4:] = data[4:8]  # the next picture is the first
    assert decode(bytes(data), wanted()).pixels.shape == (20, 30, 5)


# --- size and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_every_band_is_made_smaller_as_if_it_were_alone(count: int, dtype: Any) -> None:
    values = bands(count, dtype, 90, 131)
    small = bounded(values, wanted(count, max_side=50))
    assert small.shape == (34, 50, count)
    assert small.dtype == dtype
    for band in range(count):
        alone = cv2.resize(np.ascontiguousarray(values[:, :, band]), (50, 34), interpolation=cv2.INTER_AREA)
        assert np.abs(small[:, :, band].astype(int) - alone.astype(int)).max() <= 1


def test_settings_of_8_bits_are_called_what_they_were_called_before_there_were_16() -> None:
    """Stores are named and checkpoints compared by this text."""
    assert str(DecodeSettings(3, 512, 8, 50.0)) == (
        "DecodeSettings(channels=3, max_side=512, min_side=8, max_megapixels=50.0)"
    )
    assert "depth=16" in f"{wanted()}"
