"""Kinds of samples: how each is opened, turned into views, read without chance, and shown.

A recipe's `views.kind` names the kind, and so does the `Preprocess` beside an encoder's weights; everybody above asks
`medium_of` and looks at no kind. A new kind is its settings (a class for `data`, one for `views`, a Preprocess), a file
here that keeps the promises of `medium.Medium`, and a line in KINDS. Settings import without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stopgrad.contracts import ConfigError, Preprocess, did_you_mean
from stopgrad.data.audio import AudioDataConfig
from stopgrad.data.captioned import CaptionedDataConfig
from stopgrad.data.sources import DataConfig
from stopgrad.data.texts import TextDataConfig
from stopgrad.views.audio_config import AudioPreprocess, AudioViewsConfig
from stopgrad.views.captioned_config import CaptionedPreprocess, CaptionedViewsConfig
from stopgrad.views.config import ViewsConfig
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig

if TYPE_CHECKING:
    from stopgrad.media.medium import Medium

AnyViews = ViewsConfig | AudioViewsConfig | TextViewsConfig | CaptionedViewsConfig
AnyData = DataConfig | AudioDataConfig | TextDataConfig | CaptionedDataConfig
AnyPreprocess = Preprocess | AudioPreprocess | TextPreprocess | CaptionedPreprocess


@dataclass(frozen=True, slots=True)
class Kind:
    """The classes of a kind's settings, and the file here that reads it."""

    views: type[AnyViews]
    data: type[AnyData]
    preprocess: type[AnyPreprocess]
    file: str


KINDS = {
    "image": Kind(ViewsConfig, DataConfig, Preprocess, "images"),
    "audio": Kind(AudioViewsConfig, AudioDataConfig, AudioPreprocess, "sounds"),
    "text": Kind(TextViewsConfig, TextDataConfig, TextPreprocess, "texts"),
    "captioned": Kind(CaptionedViewsConfig, CaptionedDataConfig, CaptionedPreprocess, "captioned"),
}


def kind_named(name: object) -> Kind:
    """Raises ConfigError with the nearest name."""
    if name not in KINDS:
        raise ConfigError(f"views.kind: {name!r} is no kind of sample{did_you_mean(str(name), KINDS)}")
    return KINDS[str(name)]


def medium_of(part: AnyViews | AnyPreprocess) -> Medium:
    """What reads samples of the kind that these settings, or this preprocessing, belong to."""
    found: Medium = import_module(f"stopgrad.media.{KINDS[part.kind].file}").MEDIUM
    return found


def preprocess_from_dict(values: Mapping[str, Any]) -> AnyPreprocess:
    """What `as_dict` of a Preprocess wrote. Images say no kind: files from before there were others stay as they are.

    Raises ConfigError, KeyError or TypeError for values that are none: they may be a stranger's.
    """
    rest = dict(values)
    kind = rest.pop("kind", "image")
    if kind not in KINDS:
        raise ConfigError(f"preprocess: {kind!r} is no kind of sample; allowed: {', '.join(KINDS)}")
    return KINDS[kind].preprocess.from_dict(rest)
