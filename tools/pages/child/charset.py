"""Bytes to text: what the page says of its own encoding, held against its bytes.

Labels are read as the WHATWG's Encoding Standard reads them: ``iso-8859-1`` and ``ascii`` are windows-1252, ``gb2312``
and ``gbk`` are gb18030, ``shift_jis`` is windows-31j, ``euc-kr`` is windows-949.
"""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

SAMPLE_BYTES = 64_000
FALLBACK = "cp1252"
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf-16": "utf-16-le",
}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,8}=\s{0,8}["']?\s{0,8}([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""\A\s{0,8}<\?xml[^>]{0,100}?encoding\s{0,8}=\s{0,8}["']([A-Za-z0-9_:.-]{1,40})["']""")
USED = ("utf-8", "utf-16-le", "utf-16-be", "gb18030", "big5hkscs", "cp932", "euc_jp", "iso2022_jp", "cp949", "cp866",
        "cp874", "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", *(f"cp{number}" for number in range(1250, 1259)),
        *(f"iso8859_{number}" for number in range(2, 17) if number not in (9, 11, 12)))  # fmt: skip
"""Every encoding that pages are read in, as Python names them."""


def decode(body: bytes, declared: str, *, html: bool) -> tuple[str, str]:
    """The text, and the encoding it was read in: byte-order mark, then header, then the page's own word, then a guess.

    ``declared`` is the header's charset, empty where there is none. A word that does not fit the bytes is not believed.
    """
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace"), name
    inside = (_META.search(body[:4096]) or _XML.search(body[:200])) if html else _XML.search(body[:200])
    own = inside[1].decode("ascii") if inside else ""
    words = [declared, "utf-8" if own.lower().startswith("utf-16") else own, "utf-8"]  # it was read as ASCII just now
    for name in dict.fromkeys(filter(None, map(meant, words))):
        try:
            return body.decode(name), name
        except UnicodeDecodeError as error:
            if name == FALLBACK and 0x81 <= body[error.start] <= 0x9D:  # five bytes that the table leaves free
                return body.decode(name, "replace"), name
    believed = [name for name in map(meant, words[:2]) if name]
    if believed and believed[0] == "utf-8":
        text = body.decode("utf-8", "replace")
        if text.count("\ufffd") <= len(text) // 500:  # a few bytes are damaged, or a character was cut in two
            return text, "utf-8"
    guess = _guessed(body[:SAMPLE_BYTES])
    name = guess or (believed[0] if believed else FALLBACK)
    return body.decode(name, "replace"), name


def _guessed(sample: bytes) -> str | None:
    """The likeliest encoding; windows-1252, as in browsers, where it is as likely as another."""
    found = list(from_bytes(sample))
    if not found:
        return None
    equal = [meant(one.encoding) for one in found if one.chaos <= found[0].chaos]
    return FALLBACK if FALLBACK in equal else equal[0]


def meant(label: str) -> str | None:
    """The encoding that a label stands for; None for one that no page may be in."""
    try:
        name = codecs.lookup(label.strip().replace("windows-31j", "cp932").replace("x-sjis", "cp932")).name
    except LookupError:
        return None
    name = _MEANT.get(name, name)
    return name if name in {codecs.lookup(used).name for used in USED} else None
