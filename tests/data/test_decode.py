"""Each format and each flaw of reliability.md, section 5: what comes out, or the reason why nothing does."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from stopgrad.data import decode as module
from stopgrad.data.decode import BadImageError, DecodeSettings, decode, what_else

RGB = DecodeSettings(channels=3, max_side=512, min_side=8, max_megapixels=50)
GRAY = DecodeSettings(channels=1, max_side=512, min_side=8, max_megapixels=50)


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Smooth enough for JPEG, different in every quarter: a turn or a flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(**options: Any) -> bytes:
    return saved(Image.fromarray(picture()), "JPEG", quality=95, **options)


def error_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large and has hardly any data: a bomb."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(params=["simplejpeg", "pillow"])
def either_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pillow":
        monkeypatch.setattr(module, "simplejpeg", None)
    elif module.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    return str(request.param)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_gives_its_pixels(kind: str) -> None:
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    done = decode(saved(Image.fromarray(picture()), kind, **options), RGB)
    assert done.pixels.dtype == np.uint8
    assert done.pixels.flags.c_contiguous
    assert done.notes == ()
    assert error_of(done.pixels, picture()) <= {"GIF": 12, "JPEG": 3}.get(kind, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_colour_becomes_luma_and_gray_becomes_three_equal_channels(kind: str) -> None:
    image = Image.fromarray(picture())
    luma = np.asarray(image.convert("L"))[:, :, None]
    assert error_of(decode(saved(image, kind), GRAY).pixels, luma) < 3
    three = decode(saved(image.convert("L"), kind), RGB).pixels
    assert three.shape == (48, 64, 3)
    assert (three == three[:, :, :1]).all()


def test_a_jpeg_is_the_same_with_either_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = decode(jpeg(), RGB).pixels
    monkeypatch.setattr(module, "simplejpeg", None)
    assert error_of(fast, decode(jpeg(), RGB).pixels) < 1


@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_marker_is_kept_and_counted(either_decoder: str, cut: int) -> None:
    done = decode(jpeg()[:-cut], RGB)
    assert done.notes == ("repaired",)
    assert (done.pixels == decode(jpeg(), RGB).pixels).all()


@pytest.mark.parametrize(("share", "progressive"), [(0.6, False), (0.97, False), (0.6, True)])
def test_a_jpeg_that_lacks_pixels_is_bad_and_says_how_much_is_there(
    either_decoder: str, share: float, progressive: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), "JPEG", progressive=progressive)
    with pytest.raises(BadImageError, match=r"truncated JPEG \(about \d+% of its rows"):
        decode(data[: int(share * len(data))], RGB)


def test_the_share_of_rows_is_near_the_share_of_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    data = saved(Image.fromarray(noise), "JPEG")
    with pytest.raises(BadImageError) as bad:
        decode(data[: int(0.6 * len(data))], RGB)
    assert 50 < int(str(bad.value).split("about ")[1].split("%")[0]) < 65


def test_flipped_bytes_that_the_decoder_reports_make_a_jpeg_bad() -> None:
    if module.simplejpeg is None:
        pytest.skip("Pillow does not report them")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = bytearray(saved(Image.fromarray(noise), "JPEG"))
    for i in np.random.default_rng(1).integers(len(data) // 3, len(data) - 100, 40):
        data[i] ^= 0x5A
    with pytest.raises(BadImageError, match=r"corrupt JPEG|truncated JPEG"):
        decode(bytes(data), RGB)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_other_formats_cut_in_half_are_bad(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(BadImageError, match=r"truncated|corrupt"):
        decode(data[: len(data) // 2], RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>not found</html>", "looks like HTML"),
        (b"  <svg xmlns='x'/>", "looks like XML or SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like Git LFS pointer"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "looks like HEIC or AVIF"),
        (b"%PDF-1.7", "looks like PDF"),
        (bytes(100), "looks like zeros only"),
        (b"404 page not found", "looks like text"),
        (b"\x01\x02\x03\x04" * 9, "no known signature"),
    ],
)
def test_what_is_no_image_says_what_it_looks_like(data: bytes, reason: str) -> None:
    assert reason in what_else(data)
    with pytest.raises(BadImageError, match=reason):
        decode(data, RGB)


@pytest.mark.parametrize("side", [8000, 12000, 20000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_from_its_header(side: int) -> None:
    with pytest.raises(BadImageError, match=rf"^{side * side // 10**6} Mpx > limit 50 Mpx"):
        decode(png_header(side, side), RGB)


def test_a_jpeg_whose_header_asks_for_gigabytes_is_refused_from_its_header() -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    with pytest.raises(BadImageError, match="4290 Mpx > limit 50 Mpx"):
        decode(bytes(data), RGB)


def test_cmyk_becomes_rgb() -> None:
    done = decode(saved(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95), RGB)
    assert done.notes == ("cmyk",)
    assert error_of(done.pixels, picture()) < 4


def test_sixteen_bits_are_scaled_by_their_type() -> None:
    values = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)
    for kind in ("PNG", "TIFF"):
        done = decode(saved(Image.fromarray(values), kind), GRAY)
        assert done.notes == ("scaled 16-bit",)
        assert (done.pixels[:, :, 0] == np.rint(values / 257)).all()


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bit_colour_is_scaled_and_not_clipped(extension: str) -> None:
    wide = picture().astype(np.uint16) * 257
    encoded = cv2.imencode(extension, wide[:, :, ::-1])[1].tobytes()
    assert error_of(decode(encoded, RGB).pixels, picture()) <= 1


def test_float_pixels_are_scaled_by_the_minimum_and_maximum_of_the_file() -> None:
    values = np.linspace(-3, 5, 48 * 64, dtype=np.float32).reshape(48, 64)
    values[0, 1] = np.nan
    done = decode(saved(Image.fromarray(values), "TIFF"), GRAY)
    assert done.notes == ("float",)
    assert done.pixels.min() == 0
    assert done.pixels.max() == 255
    assert done.pixels[0, 1, 0] == 0
    assert int(done.pixels[24, 0, 0]) == pytest.approx(128, abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 16, 32))
    data = saved(image.convert(mode), "PNG") if mode != "P" else saved(image.quantize(4), "PNG")
    done = decode(data, RGB)
    assert done.notes == ("alpha",)
    assert (done.pixels[:, :16] == 0).all()
    assert (done.pixels[:, 16:] == 255).all()


def test_half_transparent_black_is_middle_gray() -> None:
    done = decode(saved(Image.new("RGBA", (32, 32), (0, 0, 0, 128)), "PNG"), RGB)
    assert (done.pixels == 127).all()


def test_an_opaque_alpha_channel_is_no_transparency() -> None:
    done = decode(saved(Image.fromarray(picture()).convert("RGBA"), "PNG"), RGB)
    assert done.notes == ()
    assert (done.pixels == picture()).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_stands_upright_whatever_its_exif_orientation(
    either_decoder: str, kind: str, orientation: int
) -> None:
    upright = Image.fromarray(picture())
    turn = {  # what a camera held that way stores; exif_transpose undoes it
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = saved(upright if turn is None else upright.transpose(turn), kind, exif=exif, **options)
    assert error_of(decode(data, RGB).pixels, picture()) < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_cost_the_image(either_decoder: str) -> None:
    data = jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xee" * 40)
    assert error_of(decode(data, RGB).pixels, picture()) < 4


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_used_and_it_is_noted(kind: str) -> None:
    first, second = Image.new("RGB", (32, 32), "black"), Image.new("RGB", (32, 32), "white")
    first.putpixel((0, 0), (255, 255, 255))
    done = decode(saved(first, kind, save_all=True, append_images=[second]), RGB)
    assert "animated" in done.notes
    assert done.pixels.shape == (32, 32, 3)
    assert done.pixels.mean() < 20


def test_a_wrong_extension_is_read_by_content_and_noted() -> None:
    done = decode(saved(Image.fromarray(picture()), "PNG"), RGB, extension=b".jpg")
    assert done.notes == ("extension",)
    assert (done.pixels == picture()).all()
    assert decode(saved(Image.fromarray(picture()), "PNG"), RGB, extension=b"").notes == ()


@pytest.mark.parametrize(("width", "height", "reason"), [(1, 1, "below 8"), (1, 5000, "below 8"), (20, 5000, "2x512")])
def test_an_image_that_is_too_narrow_is_bad(width: int, height: int, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode(saved(Image.new("RGB", (width, height)), "PNG"), RGB)


def test_the_smallest_side_that_is_allowed_is_kept() -> None:
    assert decode(saved(Image.new("RGB", (8, 9)), "PNG"), RGB).pixels.shape == (9, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(700, 300), (300, 700), (1100, 777), (2500, 600)])
def test_the_longer_side_is_brought_to_the_bound_by_areas(
    either_decoder: str, kind: str, size: tuple[int, int]
) -> None:
    settings = DecodeSettings(channels=3, max_side=100, min_side=8, max_megapixels=50)
    image = Image.fromarray(picture(size[1], size[0]))
    done = decode(saved(image, kind, **({"quality": 95} if kind == "JPEG" else {})), settings)
    width, height = (
        (100, round(size[1] * 100 / size[0])) if size[0] > size[1] else (round(size[0] * 100 / size[1]), 100)
    )
    assert done.pixels.shape == (height, width, 3)
    assert error_of(done.pixels, np.asarray(image.resize((width, height), Image.Resampling.BOX))) < 2


def test_only_a_jpeg_far_larger_than_the_bound_is_scaled_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    if module.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    shapes = []
    real = module.simplejpeg.decode_jpeg

    def spy(data: bytes, **options: Any) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = real(data, **options)
        shapes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(module.simplejpeg, "decode_jpeg", spy)
    settings = DecodeSettings(channels=3, max_side=100, min_side=8, max_megapixels=50)
    for width in (200, 800):
        decode(saved(Image.fromarray(picture(160, width)), "JPEG"), settings)
    assert shapes == [(160, 200), (20, 100)]


def test_a_smaller_image_is_left_as_it_is() -> None:
    assert decode(saved(Image.fromarray(picture()), "PNG"), RGB).pixels.shape == picture().shape


def test_an_image_of_one_colour_is_noted() -> None:
    assert decode(saved(Image.new("RGB", (32, 32), "teal"), "PNG"), RGB).notes == ("one colour",)


SAMPLES = {
    kind: saved(Image.fromarray(picture(24, 24)), kind) for kind in ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG")
}


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_whatever_the_bytes_there_is_an_image_or_a_reason(kind: str, draw: st.DataObject) -> None:
    data = bytearray(SAMPLES[kind])
    for _ in range(draw.draw(st.integers(0, 20))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = data[: draw.draw(st.integers(0, len(data)))]
    try:
        done = decode(bytes(data), RGB)
    except BadImageError:
        return
    assert done.pixels.dtype == np.uint8
    assert done.pixels.shape[2] == 3
