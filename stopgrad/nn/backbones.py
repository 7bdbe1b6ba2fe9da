"""Backbones: crops [B, C, S, S] -> [B, dim]. `tiny` is ours, everything else is timm's with its classifier removed.

`tiny` is a residual net for CPUs at 32 pixels: a stride-2 stem and three stages of one basic block (He et al. 2015),
32, 64 and 128 channels wide. How it was chosen stands in docs/tiny.md.

Residual branches of `tiny` and of timm's ResNets, with selective kernels too, begin at scale 0 (the last batch norm's
weight), whatever the method.
SimSiam, UniGrad, Barlow Twins, VICReg, SimCLR and MoCo v3 have it so. BYOL's numbers are with 1, and so are those of
DINO's ResNet-50 and of solo-learn's CIFAR recipes (torchvision's default); InstDisc, InvaSpread, MoCo v1, v2 and SwAV
state nothing.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, MissingInputError, did_you_mean
from stopgrad.nn.colour_split import LabSplit
from stopgrad.nn.config import SEQUENCES, VIT_ONLY, BackboneConfig, Norm
from stopgrad.nn.patches import Patches
from stopgrad.nn.sequence import sequence_trunk
from stopgrad.nn.text import text_trunk
from stopgrad.nn.text_config import TEXTS
from stopgrad.nn.towers import SensorTowers
from stopgrad.nn.vit import set_up_vit
from stopgrad.nn.with_kept import WithKept, with_kept

# Attributes of a model that say what plain timm needs to build the same: for `stopgrad export`.
TIMM_ARGUMENTS, SMALL_STEM = "timm_arguments", "small_stem_width"
CONNECTED = 5.0  # seconds until a network counts as absent
SMALL_IMAGE = 64  # pixels; up to here `stem: auto` gives a ResNet the small-image stem
# Stages of a ResNet at half width, its stem at full: CMC's (HobbitLong/CMC models/resnet.py, ResNetV1).
HALF_CHANNELS, HALVED = (32, 64, 128, 256), ("resnet", "sknet")  # and timm's files that take them


def _norm(kind: Norm, width: int) -> nn.BatchNorm2d | nn.GroupNorm:
    return nn.GroupNorm(1, width) if kind == "layer" else nn.BatchNorm2d(width)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the last batch norm starts at scale 0 (SimSiam, appendix A)."""

    def __init__(self, width_in: int, width: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = _norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = _norm(norm, width)
        nn.init.zeros_(self.bn2.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), _norm(norm, width))

    def forward(self, x: Tensor) -> Tensor:  # [B, width_in, S, S] -> [B, width, S / stride, S / stride]
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Tiny(nn.Module):
    """Stride-2 stem, three stages of one block, average pooling. 0.3 million parameters at width 32."""

    def __init__(self, channels: int, width: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.bn = _norm(norm, width)
        self.stages = nn.Sequential(
            BasicBlock(width, width, 1, norm),
            BasicBlock(width, 2 * width, 2, norm),
            BasicBlock(2 * width, 4 * width, 2, norm),
        )
        self.dim = 4 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, 4 * width]
        x = F.relu(self.bn(self.stem(x)))  # [B, width, S / 2, S / 2]
        return self.stages(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


def build_backbone(
    config: BackboneConfig, channels: int, image_size: int, seed: int, sensors: tuple[int, ...] = ()
) -> nn.Module:
    """A randomly initialised trunk with `.dim`; the same weights for the same seed, global random state untouched.

    channels: of an image; 1 of a waveform; how many kinds of token of text.
    image_size: pixels; samples of a waveform; tokens of a text.
    sensors: how many of the channels each has, where an image is of several.

    A timm model also has `.timm_arguments`, and a ResNet with the small-image stem `.small_stem_width`. A ViT takes
    crops of other sizes too, where its patches divide them: positions are interpolated (bicubic, as in DINO).

    Raises ConfigError for a name timm does not know, a size the model can't take, or a setting it does not have.
    """
    if config.kept:
        trunk = build_backbone(replace(config, kept=()), channels, image_size, seed, sensors)
        return with_kept(trunk, config.kept, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.split in ("sensors", "sensors_lab"):
            return _towers(config, sensors, image_size)
        if config.name in SEQUENCES:
            return sequence_trunk(config, channels, image_size)
        if config.name in TEXTS:
            return text_trunk(config, channels, image_size)
        if config.patches:
            return Patches(_backbone(config, channels, config.patches), config.patches, image_size)
        if config.split == "none":
            return _backbone(config, channels, image_size)
        return _in_lab(config, channels, image_size)


def _in_lab(config: BackboneConfig, channels: int, image_size: int) -> LabSplit:
    if channels != 3:
        raise ConfigError(
            f"backbone.split={config.split} needs images of 3 channels, red, green and blue, got {channels}; use "
            "backbone.split=none"
        )
    return LabSplit(_backbone(config, 1, image_size), _backbone(config, 2, image_size))


def _towers(config: BackboneConfig, sensors: tuple[int, ...], image_size: int) -> SensorTowers:
    if len(sensors) < 2:
        raise ConfigError(
            f"backbone.split={config.split} needs 2 sensors or more, a backbone for each; name them, as in "
            "--set data.sensors=[rgb,depth]"
        )
    whole, halves = replace(config, split="none"), replace(config, split="lab")
    split = config.split == "sensors_lab"  # the first of them
    towers = [
        _in_lab(halves, own, image_size) if split and i == 0 else _backbone(whole, own, image_size)
        for i, own in enumerate(sensors)
    ]
    return SensorTowers(towers, sensors)


def _backbone(config: BackboneConfig, channels: int, image_size: int) -> nn.Module:
    """One trunk, or one of the two halves of a split one."""
    if config.name == "tiny":
        if config.stem == "small":
            raise ConfigError("backbone.stem=small is for ResNets; tiny has one stem, so remove the setting")
        return Tiny(channels, config.width if config.split == "none" else config.width // 2, config.norm)
    return _timm_backbone(config, channels, image_size)


def _timm_backbone(config: BackboneConfig, channels: int, image_size: int) -> nn.Module:
    import timm  # seconds of import, and tiny does without it

    if config.name not in timm.list_models():
        raise ConfigError(
            f"backbone.name={config.name!r} is neither tiny nor a timm model"
            + _nearest(config.name, timm.list_models())
        )
    for name, usual, who in (("norm", "batch", "tiny or a ResNet"), ("stages", 4, "a ResNet")):
        value = getattr(config, name)
        if value != usual and not timm.models.is_model_in_modules(config.name, HALVED):
            raise ConfigError(f"backbone.{name}={value} needs {who}, got {config.name}; remove it")
    try:
        model, settings = _created(config, channels, image_size)
        is_resnet = isinstance(model, timm.models.resnet.ResNet)
        if config.stem == "small" and not is_resnet:
            raise ConfigError(f"backbone.stem=small needs a ResNet, got {config.name}; use stem=auto")
        if is_resnet and (config.stem == "small" or (config.stem == "auto" and image_size <= SMALL_IMAGE)):
            _small_stem(model, channels)
        if is_resnet:
            _like_other_resnets(model)
        for stage in range(config.stages, 4):
            setattr(model, f"layer{stage + 1}", nn.Identity())
        if isinstance(model, timm.models.vision_transformer.VisionTransformer):
            set_up_vit(model, config)
        elif asked := [name for name in config.changed() if name in VIT_ONLY]:
            raise ConfigError(f"backbone.{asked[0]} needs a ViT, got {config.name}; remove it")
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        heads = "; backbone.heads=0 takes the model's own" if config.heads else ""
        raise ConfigError(
            f"backbone.name={config.name} can't be built for {image_size}-pixel images: {reason}{heads}"
        ) from error
    shape = _shape_of_features(model, config.name, channels, image_size, "--image-size ")
    if len(shape) != 2:
        raise ConfigError(f"backbone.name={config.name} gives {tuple(shape)} instead of one vector an image")
    setattr(model, "dim", shape[1])  # noqa: B010
    setattr(model, TIMM_ARGUMENTS, settings)
    return model.train()


def _created(config: BackboneConfig, channels: int, image_size: int) -> tuple[nn.Module, dict[str, Any]]:
    """A model of timm's, and the arguments plain timm needs to build one that computes the same at `image_size`."""
    import timm

    settings: dict[str, Any] = {"num_classes": 0, "in_chans": channels, "pretrained": False}
    if config.heads:
        settings["num_heads"] = config.heads
    if config.norm == "layer":
        settings["norm_layer"] = "groupnorm1"  # timm's word for one group
    if config.split != "none" and timm.models.is_model_in_modules(config.name, HALVED):
        settings["channels"] = HALF_CHANNELS
    unseen: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}  # changes training alone
    sized = {**settings, "img_size": image_size}
    state, reason = torch.get_rng_state(), ""
    # a ViT of any size, a model of one size, a convolutional net, which has no such argument
    for arguments, more in ((sized, {**unseen, "dynamic_img_size": True}), (sized, unseen), (settings, unseen)):
        torch.set_rng_state(state)  # what failed may have drawn
        try:
            model: nn.Module = timm.create_model(config.name, **arguments, **more)
        except TypeError as error:
            reason = str(error)
        else:
            return model, arguments
    asked = [name for name in ("heads", "drop_path") if getattr(config, name)]
    asked += ["norm"] if config.norm != "batch" else []
    remove = f"; remove backbone.{' and backbone.'.join(asked)}" if asked else ""
    raise ConfigError(f"backbone.name={config.name} can't be built: {reason}{remove}")


def check_sizes(backbone: nn.Module, name: str, channels: int, sizes: Sequence[int]) -> None:
    """Raises ConfigError for crops the backbone can't take, besides those of the size it was built for."""
    for size in sizes:
        _shape_of_features(backbone, name, channels, size, "--set views.crops.N.size=")


def _shape_of_features(model: nn.Module, name: str, channels: int, size: int, setting: str) -> torch.Size:
    """Of what the model makes of one image. Raises ConfigError where it can't take that size."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if size % patch[0] or size % patch[1]:
        raise ConfigError(
            f"backbone.name={name} can't be built for {size}-pixel images: its patches are {patch[0]} pixels; "
            f"use {setting}{max(1, size // patch[0]) * patch[0]}"
        )
    was_training = model.training
    try:
        with torch.no_grad():
            out: Tensor = model.eval()(torch.zeros(1, channels, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"backbone.name={name} can't be built for {size}-pixel images: {reason}") from error
    finally:
        model.train(was_training)
    return out.shape


def of_one_size(backbone: nn.Module, name: str) -> nn.Module:
    """The backbone without what makes a ViT take other sizes, for graphs: there it would stay, as an interpolation of
    the positions to the size they have. The weights are shared."""
    if isinstance(backbone, WithKept):
        return WithKept(of_one_size(backbone.trunk, name), backbone.kept, backbone.dim).train(backbone.training)
    if isinstance(backbone, Patches):
        return Patches(of_one_size(backbone.encoder, name), backbone.side, backbone.side).train(backbone.training)
    if isinstance(backbone, SensorTowers):
        towers = [of_one_size(tower, name) for tower in backbone.towers]
        return SensorTowers(towers, backbone.channels).train(backbone.training)
    if isinstance(backbone, LabSplit):
        halves = (of_one_size(half, name) for half in (backbone.luminance, backbone.chrominance))
        return LabSplit(*halves).train(backbone.training)
    if not getattr(backbone, "dynamic_img_size", False):
        return backbone
    import timm

    with torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model(name, **getattr(backbone, TIMM_ARGUMENTS))
    model.load_state_dict(backbone.state_dict(), assign=True)
    setattr(model, "dim", backbone.dim)  # noqa: B010
    return model.train(backbone.training)


def pretrained(name: str, channels: int, image_size: int) -> nn.Module:
    """A timm model with the weights timm has for it (downloaded on first use), and its classifier removed.

    name: with a tag (resnet18.a1_in1k) or without.  image_size: 0 for the model's own. Raises ConfigError (no such
    model, no weights), MissingInputError (they can't be fetched).
    """
    import timm

    base = name.partition(".")[0]
    if not base:
        raise ConfigError("timm: needs a model's name, such as timm:resnet18")
    if base not in timm.list_models():
        raise ConfigError(f"timm:{name}: timm has no such model" + _nearest(base, timm.list_models()))
    if not timm.is_model_pretrained(name):
        raise ConfigError(f"timm:{name}: timm has no weights of it; `timm.list_pretrained()` names those it has")
    settings: dict[str, Any] = {"num_classes": 0, "in_chans": channels, "pretrained": True}
    sized = {**settings, **({"img_size": image_size} if image_size else {})}
    try:
        with _from_cache_where_offline():
            try:
                model = timm.create_model(name, **sized)
            except TypeError:  # a convolutional net takes any size and has no such argument
                model = timm.create_model(name, **settings)
    except Exception as error:  # urllib's, the hub's, a socket's: whatever the way there raises
        reason = (str(error).splitlines() or [""])[0][:200]
        raise MissingInputError(
            f"timm:{name}: its weights can't be fetched ({type(error).__name__}: {reason}); they are downloaded on "
            "first use: connect to the network once, or give an encoder.safetensors"
        ) from error
    return model


@contextmanager
def _from_cache_where_offline() -> Iterator[None]:
    """Where the hub can't be reached, its client takes what it has at once: by itself it asks again for 50 seconds."""
    try:
        from huggingface_hub import constants
    except ImportError:  # timm then has no hub to ask
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Whether somebody answers there; True where a proxy would be asked instead, which can't be told from here."""
    if urllib.request.getproxies():
        return True
    parts = urllib.parse.urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=CONNECTED).close()
    except (OSError, ValueError):
        return False
    return True


def _small_stem(model: nn.Module, channels: int) -> None:
    """3x3 convolution at stride 1 and no max-pooling: a 32-pixel image keeps a 4x4 map (SimCLR, B.9)."""
    width = len(cast(nn.Parameter, cast(nn.Module, model.bn1).weight))
    model.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    setattr(model, SMALL_STEM, width)


def _like_other_resnets(model: nn.Module) -> None:
    """What timm's selective kernels (skresnet18, ...) have otherwise than its other ResNets: branches begin at scale 0,
    and ReLU stands behind a batch norm, not in it, where it would keep the norm from being shared by processes or
    split. The names of tensors stay timm's, and so does what they compute."""
    from timm.layers.conv_bn_act import ConvNormAct
    from timm.layers.norm_act import BatchNormAct2d

    for part in model.modules():
        if hasattr(part, "zero_init_last"):
            part.zero_init_last()  # type: ignore[operator]
    for part in [part for part in model.modules() if isinstance(part, ConvNormAct)]:
        fused = part.bn
        if isinstance(fused, BatchNormAct2d) and part.aa is None:  # aa: what runs behind the norm; a blur, or nothing
            norm = nn.BatchNorm2d(fused.num_features, fused.eps, fused.momentum)
            norm._parameters, norm._buffers = fused._parameters, fused._buffers  # the same tensors
            part.bn, part.aa = norm, fused.act


def _nearest(found: str, names: list[str]) -> str:
    hint = did_you_mean(found, names)
    return hint if "did you mean" in hint else "; python -c 'import timm; print(timm.list_models())' lists them"
