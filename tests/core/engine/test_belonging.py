"""Which cluster a directory belongs to: the id that was learnt is kept, and proven to the others once."""

from replicad.core.engine.belonging import PROVE_AFTER_US
from tests.core.engine.test_node import Ports, engine


class Noting(Ports):
    """Also notes what is kept, and that links are opened anew."""

    def keep_cluster_id(self, cluster_id):
        self.calls.append(("keep", cluster_id))

    def open_links_anew(self):
        self.calls.append("open links anew")


def test_links_are_opened_anew_once_after_the_id_was_learnt():
    """Not before the others can have it, too, and never again: each time costs every link."""
    ports = Noting()
    node = engine(ports)
    ports.calls.clear()
    node.belonging.learn("an id")
    node.tick()
    assert ports.calls == [("keep", "an id")]
    for _ in range(3):
        ports.time += PROVE_AFTER_US
        node.tick()
    assert ports.calls == [("keep", "an id"), "open links anew"]
