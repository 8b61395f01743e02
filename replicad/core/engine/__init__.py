"""The node as a pure object: its groups, one flush number, the gate, executor turns, and requests that wait.

Two shells drive it: a real process (:mod:`replicad.node`) and a simulated one (:mod:`replicad.lab`). A shell moves
bytes, time and threads; whatever decides is here or below.
"""
