"""Texts that users read are reviewed: every change of an error, log line or command changes texts.txt."""

from __future__ import annotations

import re

import pytest

from tests.support.texts import REVIEWED, collected

AVOIDED = (
    "nobody can tell",
    "what becomes of",
    "what became of",
    "so that there is none",
    "so that nothing was",
    "Look in Apptoto",
    "has it in hand",
    "puts right",
    "put right",
    "the like",
    "lest",
    "hence",
    "has to be",
    "meanwhile",
    "all the same",
    "given twice",
    "by now",
    "was told to",
    "in the place of",
    "at the most",
    "of its own",
    "nobody",
    "it is not known",
)
"""Phrases that no native engineer would write."""


def test_every_text_that_users_read_is_the_reviewed_one() -> None:
    assert collected() == REVIEWED.read_text(), "Review the new wording, then run: python -m tests.support.texts"


@pytest.mark.parametrize("phrase", AVOIDED)
def test_no_text_uses_a_phrase_that_reads_as_a_translation(phrase: str) -> None:
    assert not re.search(rf"\b{phrase}\b", REVIEWED.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("word", ["ITS", "NOT", "NEVER", "ALWAYS", "MUST"])
def test_no_text_shouts(word: str) -> None:
    assert not re.search(rf"\b{word}\b", REVIEWED.read_text())
