"""How stored bytes become images and back: one file a codec, found by the entry points of ``ddplug.codecs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.synthetic.codecs.avif import Avif as Avif
    from ddplug.synthetic.codecs.dct import Dct as Dct
    from ddplug.synthetic.codecs.pixels import Pixels as Pixels
    from ddplug.synthetic.codecs.plain import Plain as Plain
    from ddplug.synthetic.codecs.protocol import Codec as Codec
    from ddplug.synthetic.codecs.protocol import codec_of as codec_of
    from ddplug.synthetic.codecs.protocol import spec_of as spec_of
    from ddplug.synthetic.codecs.rules import suited as suited

_HOMES = {
    "Avif": "avif",
    "Codec": "protocol",
    "Dct": "dct",
    "Pixels": "pixels",
    "Plain": "plain",
    "codec_of": "protocol",
    "spec_of": "protocol",
    "suited": "rules",
}

__all__ = ["Avif", "Codec", "Dct", "Pixels", "Plain", "codec_of", "spec_of", "suited"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
