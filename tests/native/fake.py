"""A node in memory for tests of the native port: that of the HTTP tests, and what the native port asks besides."""

from types import SimpleNamespace

from replicad.core.model.operations import Result
from replicad.node.settings_models import Address
from tests.http.fake import FakeNode


class FakeDirectory:
    def __init__(self):
        self.drained = set()
        self.members = {"default": ("n1", "n2"), "far": ("n2", "n3"), "nowhere": ("n4",)}

    def names(self):
        return list(self.members)

    def is_drained(self, name):
        return name in self.drained

    def nodes(self):
        return ["n1", "n2", "n3", "n4"]

    def definition(self, name):
        members = self.members.get(name)
        return None if members is None else SimpleNamespace(nodes=lambda: members)


class FakeAddresses:
    def __init__(self, address):
        self.address = address

    def native_address(self):
        return self.address


class NativeNode(FakeNode):
    """Addresses are made up, but for this node's own (see ``found_at``)."""

    def __init__(self, name="n1", limits=None):
        super().__init__(limits, name)
        self.directory = FakeDirectory()
        self.up = {"n2"}
        self.transport = SimpleNamespace(connected=lambda name: name in self.up)
        self.default.replica = SimpleNamespace(coordinator="n1")
        ports = {"n1": 7001, "n2": 7002, "n3": 7003}
        nodes = {name: FakeAddresses(Address("127.0.0.1", port)) for name, port in ports.items()}
        nodes["n4"] = FakeAddresses(None)
        self.settings = SimpleNamespace(nodes=nodes)
        self.directory.native_address = self.native_address
        self.directory.contacts = self.contacts

    def native_address(self, name):
        return str(self.settings.nodes[name].native_address() or "")

    def contacts(self, group):
        names = [name for name in self.directory.members[group] if name != self.name]
        return sorted(names, key=lambda name: name not in self.up)

    def found_at(self, **ports):
        """Say where nodes really are."""
        for name, port in ports.items():
            self.settings.nodes[name] = FakeAddresses(Address("127.0.0.1", port))


def held_done(node, number=0, result=None):
    """Answer a write that the fake group holds back."""
    node.default.held[number].set_result(result or Result(1, 7))
