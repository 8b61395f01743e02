"""Refusals of a coordinator that speaks version 1 of the peer protocol, which sends a sentence and no code.

Those sentences are fixed: they are what one release, which changes no more, says. The file goes together with version 1
(``PEER_VERSION_MIN``), and nothing else may decide by what a sentence says.
"""

from __future__ import annotations

from replicad.core.model.refusals import Refusal, RefusalCode

WORDS = (
    ("there is no change", RefusalCode.MALFORMED),
    ("needs a name of", RefusalCode.MALFORMED),
    ("there is no protocol", RefusalCode.UNKNOWN_PROTOCOL),
    ("is a voter already", RefusalCode.ALREADY_VOTER),
    ("is no voter of this group", RefusalCode.NOT_VOTER),
    ("is no mirror of this group", RefusalCode.NOT_MIRROR),
    ("is the last voter", RefusalCode.LAST_VOTER),
    ("mirrors, and that is the most", RefusalCode.TOO_MANY_MIRRORS),
    ("voters, and that is the most", RefusalCode.TOO_MANY_VOTERS),
    ("has changed since this was asked for", RefusalCode.OUTDATED),
    ("the office is being handed over", RefusalCode.HANDING_OVER),
    ("another change is under way", RefusalCode.BUSY),
    ("was not heard of lately", RefusalCode.SILENT),
    ("has not begun to follow", RefusalCode.BEHIND),
    ("slots behind", RefusalCode.BEHIND),
    ("is not in the view", RefusalCode.NOT_IN_VIEW),
    ("a majority would be", RefusalCode.NO_MAJORITY),
    ("is the coordinator", RefusalCode.COORDINATES),
)
"""Words of each sentence, and what they mean; the first that are found count."""


def from_sentence(sentence: str) -> Refusal | None:
    """Return what a coordinator of version 1 said; None if it refused nothing."""
    if not sentence:
        return None
    code = next((code for words, code in WORDS if words in sentence), RefusalCode.OTHER)
    return Refusal(code, sentence)
