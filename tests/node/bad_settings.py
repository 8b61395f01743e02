"""Settings files that are refused, and what is said of each. A table in the docs is made from these rows."""

from typing import NamedTuple

GOOD = """
[cluster]
name = "c"
[nodes.n1]
http_listen = "127.0.0.1:8001"
peer_listen = "127.0.0.1:9001"
[nodes.n2]
http_listen = "127.0.0.1:8002"
peer_listen = "127.0.0.1:9002"
"""


class BadSettings(NamedTuple):
    """``what`` is wrong, in words; the file; the environment; phrases of the sentence that is given back."""

    what: str
    text: str
    phrases: tuple[str, ...]
    environ: dict[str, str] = {}  # noqa: RUF012 - never changed
    node: str | None = "n1"


BAD_SETTINGS = [
    BadSettings("not TOML", "[cluster\n", ("is not valid TOML", "line 1")),
    BadSettings("an empty file", "", ("cluster is missing", "begin with [cluster]"), node=None),
    BadSettings(
        "a cluster without a name",
        GOOD.replace('name = "c"', ""),
        ("cluster.name is missing", "give the cluster a name"),
    ),
    BadSettings(
        "a cluster's name with a space", GOOD.replace('"c"', '"my cluster"'), ("cluster.name", "letters, digits")
    ),
    BadSettings("no node", '[cluster]\nname = "c"\n', ("nodes is missing", "[nodes.n1]"), node=None),
    BadSettings("a node that is not in the file", GOOD, ("there is no node 'n9'", "the nodes are n1, n2"), node="n9"),
    BadSettings("several nodes, and none is named", GOOD, ("which node is this?", "n1, n2"), node=None),
    BadSettings(
        "a misspelt setting",
        GOOD + '[node]\nlog_levle = "info"\n',
        ("node.log_levle", "no such setting", "did you mean node.log_level?"),
    ),
    BadSettings(
        "a setting in no table of ours",
        GOOD + "[server]\nport = 1\n",
        ("server: there is no such setting", "settings there are cluster, nodes"),
    ),
    BadSettings(
        "the secret itself in the file",
        GOOD.replace('"c"', '"c"\nshared_secret = "hunter2hunter2hunter2"'),
        ("did you mean cluster.shared_secret_file?",),
    ),
    BadSettings(
        "a number in quotes",
        GOOD + '[node]\nrequest_timeout_ms = "5000"\n',
        ('node.request_timeout_ms is "5000"', "must be a whole number"),
    ),
    BadSettings(
        "a number with a fraction",
        GOOD + "[cluster.limits]\nlease_ms = 300.5\n",
        ("cluster.limits.lease_ms is 300.5", "must be a whole number"),
    ),
    BadSettings(
        "a number out of bounds",
        GOOD + "[node]\nrequest_timeout_ms = 0\n",
        ("node.request_timeout_ms is 0", "must be at least 10"),
    ),
    BadSettings(
        "a switch that is no truth value",
        GOOD + '[node]\nlog_file = "yes"\n',
        ('node.log_file is "yes"', "must be true or false"),
    ),
    BadSettings(
        "an unknown choice",
        GOOD + '[node]\nlog_format = "xml"\n',
        ('node.log_format is "xml"', 'must be one of "console" or "json"'),
    ),
    BadSettings(
        "an address without a port",
        GOOD.replace("127.0.0.1:9001", "127.0.0.1"),
        ('nodes.n1.peer_listen is "127.0.0.1"', 'must be "host:port"'),
    ),
    BadSettings(
        "a port that does not exist",
        GOOD.replace("127.0.0.1:9001", "127.0.0.1:90010"),
        ("nodes.n1.peer_listen", "must be a number from 1 to 65535"),
    ),
    BadSettings(
        "an IPv6 address without brackets",
        GOOD.replace("127.0.0.1:9001", "::1:9001"),
        ("nodes.n1.peer_listen", "in brackets"),
    ),
    BadSettings(
        "two nodes at one address",
        GOOD.replace("9002", "9001"),
        ("nodes.n1.peer_listen and nodes.n2.peer_listen are both 127.0.0.1:9001", "its own address"),
    ),
    BadSettings(
        "listening everywhere, found nowhere",
        GOOD.replace("127.0.0.1:9001", "0.0.0.0:9001"),
        ("nodes.n1", "peer_listen is 0.0.0.0:9001", "peer_advertise must say"),
    ),
    BadSettings(
        "an address to be found at that nobody can dial",
        GOOD.replace("[nodes.n2]", 'peer_advertise = "0.0.0.0:9001"\n[nodes.n2]'),
        ("nodes.n1.peer_advertise", "nobody can connect to a wildcard"),
    ),
    BadSettings(
        "a member that is no node",
        GOOD + '[groups.default]\nmembers = ["n1", "n7"]\n',
        ("groups.default.members", "'n7'", "not one of the nodes: n1, n2"),
    ),
    BadSettings("a group of nobody", GOOD + "[groups.default]\nmembers = []\n", ("groups.default", "members is empty")),
    BadSettings("a member named twice", GOOD + '[groups.default]\nmembers = ["n1", "n1"]\n', ("names a node twice",)),
    BadSettings(
        "a protocol that there is not",
        GOOD + '[groups.default]\nprotocol = "passive"\n',
        ('groups.default.protocol is "passive"', 'must be one of "remote-write" or "active"'),
    ),
    BadSettings(
        "a group's limit above the cluster's",
        GOOD + "[groups.default]\nvalue_bytes_max = 1000000\n",
        ("groups.default.value_bytes_max is 1000000", "at most cluster.limits.value_bytes_max, which is 524288"),
    ),
    BadSettings(
        "a name that is the cluster's own",
        GOOD + "[groups._meta]\n",
        ("groups._meta", "letters, digits and hyphens"),
    ),
    BadSettings(
        "a voter on groups that is no node",
        GOOD.replace('name = "c"', 'name = "c"\nmeta = ["n9"]'),
        ("cluster.meta names 'n9'", "not one of the nodes: n1, n2"),
    ),
    BadSettings(
        "nobody to vote on groups",
        GOOD.replace('name = "c"', 'name = "c"\nmeta = []'),
        ("cluster.meta must name at least one node",),
    ),
    BadSettings(
        "a lease that one lost heartbeat would cost",
        GOOD + "[cluster.limits]\nlease_ms = 100\n",
        ("cluster.limits", "lease_ms must be at least 4 heartbeats"),
    ),
    BadSettings(
        "batches that fit no segment",
        GOOD + "[node]\nsegment_bytes = 1048576\nreserve_bytes = 65536\n",
        ("node.segment_bytes is 1048576", "at least 4198464 bytes"),
    ),
    BadSettings(
        "a secret that is not there",
        GOOD.replace('"c"', '"c"\nshared_secret_file = "nowhere"'),
        ("cluster.shared_secret_file", "cannot be read", "No such file"),
    ),
    BadSettings(
        "nonsense in the environment",
        GOOD,
        ("environment variable REPLICAD_REQUEST_TIMEOUT_MS", 'is "soon"', "must be a whole number"),
        {"REPLICAD_REQUEST_TIMEOUT_MS": "soon"},
    ),
]
