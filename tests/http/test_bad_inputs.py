"""Every row of the table of bad inputs gets the status and the sentence that the table promises."""

import pytest

from tests.http.bad_inputs import BAD_INPUTS, VALUE_BYTES_MAX
from tests.http.raw import Client


@pytest.mark.parametrize("row", BAD_INPUTS, ids=lambda row: row.what)
async def test_bad_input(server, node, row):
    """Status, sentence and outcome are right, nothing is written, and the server goes on."""
    assert node.limits.value_bytes_max == VALUE_BYTES_MAX
    async with Client(server.port) as client:
        answer = await client.ask(row.method, row.path, row.headers, row.body)
    assert (answer.status, row.phrase.lower() in answer.text.lower()) == (row.status, True), answer.text
    assert answer.headers["X-Replicad-Outcome"] == "definite"
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.endswith((".", "?"))
    assert ("Allow" in answer.headers) == (answer.status == 405)
    assert node.default.index == 0
    async with Client(server.port) as client:
        assert (await client.ask("GET", "/livez")).status == 200


@pytest.mark.parametrize("row", BAD_INPUTS[:5], ids=lambda row: row.what)
async def test_bad_input_in_json(client, row):
    """A client that asks for JSON gets the same sentence in it."""
    answer = await client.ask(row.method, row.path, {**row.headers, "Accept": "application/json"}, row.body)
    assert answer.status == row.status
    assert row.phrase in answer.json["error"]
    assert (answer.json["definite"], answer.json["retry_after_ms"]) == (True, 0)


async def test_repeated_idempotency_key(client):
    """Two Idempotency-Key headers are refused: neither wins."""
    client.writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n")
    from tests.http.raw import read_answer

    answer = await read_answer(client.reader)
    assert (answer.status, "given twice" in answer.text) == (400, True)


async def test_body_cut_short(server, node):
    """A body that ends before its announced length is never taken for the value."""
    for head in ("Content-Length: 100", "Transfer-Encoding: chunked"):
        async with Client(server.port) as client:
            client.writer.write(f"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n5\r\nabcde\r\n".encode())
            client.writer.write_eof()
            await client.reader.read()
    async with Client(server.port) as client:
        assert (await client.ask("GET", "/v1/kv/a")).status == 404
    assert node.default.index == 0
