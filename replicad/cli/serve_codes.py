"""Exit codes of ``replicad serve``, apart from it so that who only reads them does not import a whole node."""

from __future__ import annotations

EXIT_FAILED = 70
"""A rule was broken or the disk failed: do not restart blindly, read the event log."""
EXIT_UNUSABLE = 2
"""The settings, the data directory or an address cannot be used."""
