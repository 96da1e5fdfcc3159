"""Texts that software often chokes on; floor 7."""

from __future__ import annotations

HOSTILE = (
    "Zoë Müller, 日本語, العربية, עברית, ελληνικά, e\u0301",
    "👩\u200d👩\u200d👧 🏴\u200d☠️ 𝒳 \U0010ffff",
    "tab\t newline\n return\r nul\0 escape\x1b[31m delete\x7f nel\x85 line\u2028 turned\u202e mark\ufeff",
    "' \" ` \\ </b> &amp; %s %00 {{ payload }} {% raw %} ${HOME} ../../etc #:/?@ <!channel> *b* _i_",
)
"""Scripts and accents; characters outside the first 65,536 and joined ones; control characters; syntax of other languages."""
