from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_checks import Page

from mdprop_ext.report import html
from mdprop_ext.report._page_style import STYLE

NASTY = '<script>alert("1")</script> & \' " </style> ünï'


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=20))
def test_any_text_comes_back_from_the_page(text):
    parts = html.section(text, html.paragraph(text), html.facts(text, {text: text}))
    page = Page(html.page(text, STYLE, parts))
    for tag in ("title", "h1", "h2", "p", "td", "caption"):
        assert "".join(page.texts[tag]) == text
    assert page.all("div")[0]["aria-label"] == text


def test_text_is_never_markup():
    content = [
        html.paragraph(NASTY, kind='"><b>'),
        html.table(NASTY, (NASTY, "2"), [(NASTY, NASTY)]),
        html.figure(b"x", alt=NASTY, caption=NASTY),
        html.disclosure(NASTY, html.paragraph(NASTY)),
    ]
    page = Page(html.page(NASTY, STYLE, html.section(NASTY, *content)))
    assert not page.all("script")
    assert not page.all("b")
    assert page.all("img")[0]["alt"] == NASTY


def test_columns_of_numbers_are_aligned_with_their_titles():
    rows = [("a", "1.5 %", "12", "x"), ("b", html.NOTHING, "±3", "4")]
    page = Page(html.table("numbers", ("name", "share", "spread", "mixed"), rows))
    assert [attributes.get("class") for attributes in page.all("th")] == [None, "number", "number", None, None, None]
    assert [attributes.get("class") for attributes in page.all("td")] == ["number", "number", None] * 2
    assert [attributes.get("scope") for attributes in page.all("th")] == ["col"] * 4 + ["row"] * 2


def test_nothing_where_there_is_no_content():
    assert html.section("empty", html.facts("none", {})) == ""


def test_a_frame_holds_a_whole_page():
    whole = html.page("inside", STYLE, html.paragraph(NASTY))
    (attributes,) = Page(html.frame(whole)).all("iframe")
    assert attributes["srcdoc"] == whole
    assert attributes["sandbox"] == ""


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "panel"])
@pytest.mark.parametrize("text", ["text", "quiet", "accent"])
def test_contrast_is_that_of_the_accessibility_guidelines(scheme, ground, text):
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    block = light if scheme == "light" else dark.partition("* {")[0]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    lighter, darker = sorted((luminance(colours[name]) for name in (ground, text)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
