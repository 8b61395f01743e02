"""What ``replicad doctor`` finds: one plain sentence each, good, worth a look, or wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

OK = "ok"
LOOK = "look"
WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing, and what to do ("": nothing)."""

    level: str
    node: str
    sentence: str
    advice: str = ""


@dataclass(slots=True)
class Findings:
    """Collects the findings about one node."""

    node: str
    items: list[Finding] = field(default_factory=list)

    def ok(self, sentence: str) -> None:
        """Something is as it should be."""
        self.items.append(Finding(OK, self.node, sentence))

    def look(self, sentence: str, advice: str = "") -> None:
        """Something cannot be told, or is unwise."""
        self.items.append(Finding(LOOK, self.node, sentence, advice))

    def wrong(self, sentence: str, advice: str = "") -> None:
        """Something is wrong, and must be put right."""
        self.items.append(Finding(WRONG, self.node, sentence, advice))
