"""What the load generators print is read as it was recorded, and what they send is what the servers expect."""

import json
import struct

import pytest

from benchmarks.generators import grpc, native, redis_benchmark, wrk
from benchmarks.generators.loads import Counted, GeneratorError, Histogram, Load, output_of, shares, together

WRK = """\
Running 2s test @ http://127.0.0.1:10116
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     9.55ms    3.34ms  58.93ms   75.93%
    Req/Sec     6.66k     1.11k    9.72k    80.00%
  13289 requests in 2.01s, 2.42MB read
Requests/sec:   6620.46
Transfer/sec:      1.21MB
RESULT {"requests": 4, "microseconds": 2007263, "status": 1, "broken": 2, "max": 58931}
LATENCY 1000 1
LATENCY 2000 2
LATENCY 58931 1
"""

H2LOAD = """\
starting benchmark...
spawning thread #0: 64 total client(s). Timing-based test with 0s of warm-up time and 2s of main duration for \
measurements.
Application protocol: h2c
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 2.02s, 3063.00 req/s, 284.70KB/s
requests: 6126 total, 6190 started, 6126 done, 6124 succeeded, 1 failed, 1 errored, 0 timeout
status codes: 6124 2xx, 0 3xx, 2 4xx, 0 5xx
traffic: 569.40KB (583065) total, 12.71KB (13020) headers (space savings 94.41%), 198.60KB (203363) data
                     min         max         mean         sd        +/- sd
time for request:     2.47ms     56.18ms     19.36ms      7.38ms    73.93%
"""

H2LOAD_LOG = """\
1795386221692933\t200\t13277
1795386221695300\t200\t22517
1795386221695947\t200\t21902
"""

REDIS = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","46360.68","5.400","0.488","3.807","15.263","20.703","37.343"
"""

REDIS_COUNTED = """\
# Commandstats
cmdstat_ping:calls=2,usec=5,usec_per_call=2.50,rejected_calls=0,failed_calls=0
cmdstat_set:calls={calls},usec=142750,usec_per_call=1.43,rejected_calls={rejected},failed_calls={failed}
"""


def load(requests):
    return Load(requests, 1000.0, 0, 1.0, 2.0, 3.0)


def test_wrk_says_requests_failures_and_every_latency():
    found = wrk.parse(WRK)
    assert (found.requests, found.status, found.broken) == (4, 1, 2)
    assert found.seconds == pytest.approx(2.007263)
    assert [found.latency.percentile(percent) for percent in (25, 50, 75, 76, 100)] == [1000, 2000, 2000, 58931, 58931]


def test_wrk_without_a_result_is_an_error():
    with pytest.raises(GeneratorError, match="wrk printed no result: unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_h2load_says_what_succeeded_what_did_not_and_how_many_bytes_came():
    found, data = grpc.parse(H2LOAD, H2LOAD_LOG, 2)
    assert (found.requests, found.seconds, found.status, found.broken, data) == (6124, 2, 2, 2, 203363)
    assert [found.latency.percentile(percent) for percent in (1, 50, 99)] == [13277, 21902, 22517]


def test_h2load_without_a_result_is_an_error():
    with pytest.raises(GeneratorError, match="h2load printed no result"):
        grpc.parse("finished in 2.02s", "", 2)


def test_redis_benchmark_in_csv():
    assert redis_benchmark.parse(REDIS, 100_000) == Load(100_000, 46360.68, 0, 3807.0, 20703.0, 37343.0)


@pytest.mark.parametrize("text", ["", "Error from server: READONLY\n" + REDIS, REDIS + REDIS.splitlines()[1] + "\n"])
def test_redis_benchmark_without_one_clean_result_is_an_error(text):
    with pytest.raises(GeneratorError, match="redis-benchmark printed no result"):
        redis_benchmark.parse(text, 100_000)


def test_redis_counted_the_same():
    redis_benchmark.check_sets(load(100_000), REDIS_COUNTED.format(calls=120_000, rejected=0, failed=0))


@pytest.mark.parametrize(("calls", "rejected", "failed"), [(99_999, 0, 0), (120_000, 1, 0), (120_000, 0, 1)])
def test_redis_counted_something_else(calls, rejected, failed):
    with pytest.raises(GeneratorError, match="counted 100000 SETs, and the server says cmdstat_set"):
        redis_benchmark.check_sets(load(100_000), REDIS_COUNTED.format(calls=calls, rejected=rejected, failed=failed))


def test_redis_counted_nothing():
    with pytest.raises(GeneratorError, match="counted no SET"):
        redis_benchmark.check_sets(load(1), "# Commandstats\n")


@pytest.mark.parametrize("after", [1100, 1164])
def test_every_put_over_grpc_made_a_revision_and_those_under_way_may_have(after):
    grpc.check_puts(load(100), 1000, after, 64)


@pytest.mark.parametrize("after", [1099, 1165])
def test_puts_over_grpc_that_made_no_revision_are_no_figure(after):
    with pytest.raises(GeneratorError, match="some were refused"):
        grpc.check_puts(load(100), 1000, after, 64)


def test_a_put_over_grpc_byte_by_byte():
    assert grpc.put_request(b"key", b"value") == b"\x00\x00\x00\x00\x0c" + b"\x0a\x03key" + b"\x12\x05value"


def test_a_range_over_grpc_byte_by_byte():
    assert grpc.range_request(b"key", serializable=False) == b"\x00\x00\x00\x00\x05" + b"\x0a\x03key"
    assert grpc.range_request(b"key", serializable=True) == b"\x00\x00\x00\x00\x07" + b"\x0a\x03key" + b"\x38\x01"


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (65536, b"\x80\x80\x04")],
)
def test_lengths_as_protobuf_writes_them(number, encoded):
    assert grpc.varint(number) == encoded


def test_a_long_value_over_grpc_has_its_length_in_front():
    body = grpc.put_request(b"k", b"x" * 200)
    kind, length = struct.unpack(">BI", body[:5])
    assert (kind, length, len(body)) == (0, 3 + 3 + 200, 5 + 3 + 3 + 200)
    assert body[8:11] == b"\x12\xc8\x01"


def result(**values):
    plain = {"requests": 32, "seconds": 2.0, "refused": 0, "broken": 0, "error": "", "latency": [[100, 16], [300, 16]]}
    return "RESULT " + json.dumps(plain | values) + "\n"


def test_the_native_generator():
    found = native.parse(result())
    assert (found.requests, found.seconds, found.latency.percentile(50), found.latency.percentile(51)) == (
        32,
        2.0,
        100,
        300,
    )


def test_a_native_run_with_refused_operations_is_no_figure():
    with pytest.raises(GeneratorError, match="3 native requests failed, first overloaded"):
        native.parse(result(refused=2, broken=1, error="overloaded"))


def test_a_native_run_that_broke_is_no_figure():
    with pytest.raises(GeneratorError, match="printed no result: the native port"):
        native.parse("the native port at 127.0.0.1:1 cannot be used: refused")


def test_native_frames_go_round_the_keys_and_no_value_comes_twice():
    keys = [b"a", b"b", b"c"]
    assert native.operations("get", keys, 2, 2, b"") == [(native.GET, b"c"), (native.GET, b"a")]
    first, second = (native.operations("put", keys, place, 3, b"x") for place in (0, 3))
    assert [fields[1] for fields in first] == [fields[1] for fields in second] == keys
    assert len({fields[2] for fields in (*first, *second)}) == 6
    assert first[0] == (native.PUT, b"a", b"000000000000x")


def counted(requests, seconds, latency, status=0, broken=0):
    histogram = Histogram()
    for value, count in latency:
        histogram.add(value, count)
    return Counted(requests, seconds, status, broken, histogram)


def test_processes_that_ran_at_once_are_one_load():
    parts = [counted(300, 1.0, [(10, 290), (50, 10)]), counted(100, 2.0, [(20, 99), (900, 1)], status=2, broken=3)]
    assert together(parts) == Load(400, 350.0, 5, 10, 50, 900)


def test_reads_of_missing_keys_fail_if_something_was_found():
    parts = [counted(100, 1.0, [(10, 100)], status=97)]
    assert together(parts, expected_status=True).failed == 3
    assert together([counted(100, 1.0, [(10, 100)], status=100)], expected_status=True).failed == 0


def test_nothing_was_counted():
    assert together([counted(0, 1.0, [])]) == Load(0, 0.0, 0, 0, 0, 0)


@pytest.mark.parametrize(("total", "parts", "each"), [(64, 3, [22, 21, 21]), (16, 1, [16]), (1, 2, [1, 0])])
def test_connections_are_shared_out(total, parts, each):
    assert shares(total, parts) == each


async def test_a_generator_that_fails_says_what_it_printed():
    with pytest.raises(GeneratorError, match="sh ended with exit code 3: no such host"):
        await output_of(("sh", "-c", "echo no such host >&2; exit 3"), 1)


async def test_a_generator_that_does_not_end_is_ended():
    with pytest.raises(GeneratorError, match="sleep did not end within 0 s"):
        await output_of(("sleep", "1000"), -20)
