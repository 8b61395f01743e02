import pytest
from click.testing import CliRunner

from replicad.cli.main import main


@pytest.fixture
def replicad(monkeypatch):
    """Runs the command in this process, given its arguments; gives click's result."""
    monkeypatch.delenv("REPLICAD_ADDR", raising=False)

    def run(*arguments, addr=None, **options):
        environ = {"REPLICAD_ADDR": addr} if addr else {}
        return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environ, **options)

    return run
