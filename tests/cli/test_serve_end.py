"""How the process of a node ends."""

import logging
import os

import pytest

from replicad.cli import serve


class LeftError(Exception):
    """The process would have ended here."""


@pytest.fixture
def left(monkeypatch, tmp_path):
    """A settings file for ``serve``; what ends the process raises, and is written down."""
    codes = []

    def leave(code):
        codes.append(code)
        raise LeftError

    monkeypatch.setattr(os, "_exit", leave)
    config = tmp_path / "c.toml"
    config.write_text('[cluster]\nname = "c"\n[nodes.n1]\n')
    return codes, config


def test_an_orderly_stop_does_not_take_the_process_apart(replicad, monkeypatch, left):
    """All is flushed by then, the event log at last: the interpreter need not visit every object that there is."""
    codes, config = left
    flushed = []
    monkeypatch.setattr(serve, "serve", lambda _settings: 0)
    monkeypatch.setattr(logging, "shutdown", lambda: flushed.append(True))
    result = replicad("serve", "--config", config)
    assert isinstance(result.exception, LeftError)
    assert (codes, flushed) == ([0], [True])


def test_other_ends_are_told_by_their_code(replicad, monkeypatch, left):
    """What could not start says so in the usual way."""
    codes, config = left
    monkeypatch.setattr(serve, "serve", lambda _settings: 2)
    assert replicad("serve", "--config", config).exit_code == 2
    assert codes == []
