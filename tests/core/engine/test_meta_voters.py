"""Who votes on ``_meta``: what is chosen, and when."""

from types import SimpleNamespace

from replicad.core.cluster.voters import Standing, next_change
from replicad.core.engine.meta_voters import FIT_US, SURPLUS_US, MetaVoters
from replicad.core.model.configuration import Configuration


def change(voters, fit="", *, silent="", leaving="", removed="", fixed=False):
    """Return the next change as ``kind name``, nodes being letters and the first voter the coordinator."""
    gone = frozenset(leaving + removed)
    standing = Standing(voters[0], tuple(voters), tuple(fit), tuple(silent), gone, frozenset(removed))
    found = next_change(standing, fixed=fixed)
    return "" if found is None else " ".join(found)


def test_voters_grow_in_pairs():
    """One node more changes nothing while the number is odd; two do, and so does one while it is even; five is all."""
    assert change("a", "b") == ""
    assert change("a", "bc") == "promote b"
    assert change("ab", "c") == "promote c"
    assert change("abc", "d") == ""
    assert change("abc", "de") == "promote d"
    assert change("abcd", "e") == "promote e"
    assert change("abcde", "fg") == ""
    assert change("ab", "cd") == "promote c"
    assert change("a", "bc", fixed=True) == ""


def test_a_silent_voter_stays():
    """Silence is no reason to lose the vote; but if one too many votes, it is the silent one."""
    assert change("abc", silent="bc") == ""
    assert change("abc", "d", silent="c") == ""
    assert change("abcd", silent="b") == "demote b"
    assert change("abcd") == "demote d"
    assert change("ab", silent="b") == "demote b"
    assert change("abcdef") == "demote f"
    assert change("abcd", fixed=True) == ""


def test_a_leaving_voter_gets_a_successor():
    """Another one takes its place, if there is one; nobody else loses the vote before it has left."""
    assert change("abc", "d", leaving="c") == "promote d"
    assert change("a", "b", leaving="a") == "promote b"
    assert change("abc", leaving="c") == ""
    assert change("abc", removed="b") == "remove b"
    assert change("abc", removed="b", fixed=True) == "remove b"
    assert change("abc", removed="a") == ""


def tender(voters, mirrors, able, *, coordinator=True):
    """Return the voters' keeper of n1 in a cluster of n1 to n5; ``able`` may change."""
    peers = {name: SimpleNamespace() for name in voters}
    office = SimpleNamespace(authority=SimpleNamespace(peers=peers), view=SimpleNamespace(fresh=lambda _: True))
    desk = SimpleNamespace(unsafe=lambda _kind, name, _office: "" if name in able else "it is behind")
    configuration = Configuration.initial({name: name for name in voters})
    for name in mirrors:
        configuration = configuration.with_mirror(name, 1)
    state = SimpleNamespace(configuration=configuration, leaving=False)
    replica = SimpleNamespace(office=office if coordinator else None, state=state, change_desk=desk)
    catalog = SimpleNamespace(
        leaving=list, removed=set(), nodes=lambda: [f"n{number}" for number in range(1, 6)], voters_fixed=False
    )
    groups = {"_meta": SimpleNamespace(replica=replica)}
    return MetaVoters(SimpleNamespace(name="n1", groups=groups, catalog=catalog))


def test_a_mirror_must_have_been_fit_for_a_while():
    """It is promoted after some time, which begins anew when it falls behind; only the coordinator acts."""
    able = {"n2", "n3"}
    keeper = tender(("n1",), ("n3", "n2"), able)
    assert keeper.choose(1) is None
    able.remove("n3")
    assert keeper.choose(FIT_US) is None
    able.add("n3")
    assert keeper.choose(FIT_US + 1) is None
    assert keeper.choose(2 * FIT_US) is None
    assert keeper.choose(2 * FIT_US + 1) == ("promote", "n2")
    assert tender(("n1",), ("n2", "n3"), able, coordinator=False).choose(9 * FIT_US) is None


def test_a_voter_too_many_stays_for_a_while():
    """Another node may be about to make the number odd."""
    able = set()
    keeper = tender(("n1", "n2", "n3", "n4"), ("n5",), able)
    assert keeper.choose(1) is None
    able.add("n5")
    assert keeper.choose(2) is None
    assert keeper.choose(FIT_US + 2) == ("promote", "n5")
    able.remove("n5")
    assert keeper.choose(SURPLUS_US) is None
    assert keeper.choose(2 * SURPLUS_US) == ("demote", "n4")
