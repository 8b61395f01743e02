"""The native client port of one node: msgpack frames over TCP, many operations in each (``docs/native.md``)."""
