"""What the tests of the report look at: the page as an HTML parser sees it."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from io import BytesIO

import numpy
from PIL import Image

_VOID = {"meta", "img", "br", "hr", "link", "input"}
_FETCHING = {"script", "link", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}


class Page(HTMLParser):
    """Elements, texts and pictures of a page; raises where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"never opened: {tag}"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self.texts.setdefault(self._open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of this kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[numpy.ndarray]:
        """The decoded images, each of which must have a text for readers who do not see it."""
        decoded = []
        for attributes in self.all("img"):
            assert len(attributes["alt"] or "") > 20
            kind, _, data = (attributes["src"] or "").partition(",")
            assert kind == "data:image/png;base64"
            with Image.open(BytesIO(base64.b64decode(data, validate=True))) as image:
                decoded.append(numpy.asarray(image.convert("RGB")))
        return decoded

    def assert_self_contained(self, html: str) -> None:
        """Nothing is fetched, run or sent."""
        assert not _FETCHING & {tag for tag, _ in self.tags}
        for _, attributes in self.tags:
            assert not any(name.startswith("on") for name in attributes), attributes
            for name in ("src", "href", "srcset", "style"):
                assert (attributes.get(name) or "data:").startswith("data:"), attributes
        assert "url(" not in html
        assert "@import" not in html
        assert "http" not in html
