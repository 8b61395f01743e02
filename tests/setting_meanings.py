"""What each setting means, in a sentence: the part of the table of settings that the models do not hold.

``tests/test_docs.py`` checks that every setting has one, and that none is left over.
"""

MEANINGS = {
    "cluster.name": "Name of the cluster. Nodes of different clusters refuse each other; data directories hold it.",
    "cluster.shared_secret_file": "File whose content, 16 bytes or more, all nodes must know; relative to the settings "
    "file. Empty: none.",
    "cluster.meta": "The nodes that vote on what groups and nodes there are, in order; the others follow. Absent: at "
    "first all nodes, at most five; then an odd number of the nodes that the cluster has.",
    "cluster.limits.lease_ms": "How long a member stays with a coordinator that it heard of; a failover takes about as "
    "long. At least 4 heartbeats.",
    "cluster.limits.heartbeat_ms": "Interval between heartbeats.",
    "cluster.limits.rate_bound_ppm": "By how much the rates of two clocks may differ, in parts per million; below "
    "200000. Beyond it leases are wrong.",
    "cluster.limits.stagger_ms": "Candidates wait up to this long times their rank, so as not to split the votes.",
    "cluster.limits.stall_after_ms": "A flush, or a slot without an answer, that takes longer costs the lease; a "
    "coordinator its office. Where it always takes longer, up to twice as long for a flush, four times for a slot.",
    "cluster.limits.value_bytes_max": "Largest value.",
    "cluster.limits.batch_operations_max": "Most operations in one slot.",
    "cluster.limits.batch_bytes_max": "Most bytes in one slot; at least one value.",
    "cluster.limits.open_slots_max": "Most slots not yet committed, and most committed slots not yet applied.",
    "cluster.limits.pipelined_slots": "With so many slots on their way, a small batch waits and grows (remote-write).",
    "cluster.limits.open_bytes_max": "Their bytes. Beyond them writes are answered 429.",
    "cluster.limits.tickets_max": "Tickets of one contact that are under way (active replication).",
    "cluster.limits.hand_on_bytes": "From this size on, members take turns with operations of the sequencer's clients.",
    "cluster.limits.repair_after_ms": "A ticket whose batch has not come for so long is a hole: its slot is repaired.",
    "cluster.limits.request_window_slots": "For how many slots a request, or an `Idempotency-Key`, is remembered.",
    "cluster.limits.checkpoint_slots": "A checkpoint is due after so many slots,",
    "cluster.limits.checkpoint_bytes": "or after so many bytes of values.",
    "cluster.limits.retained_slots": "Slots kept in memory below the checkpoint, for members that are a little behind,",
    "cluster.limits.retained_bytes": "and at most so many bytes of them.",
    "cluster.limits.join_lag_slots": "A member that is fewer slots behind may join the view.",
    "cluster.limits.digest_slots": "Replicas compare digests at multiples of this many slots.",
    "cluster.limits.page_entries": "Entries in one page when a member catches up,",
    "cluster.limits.page_bytes": "and bytes in one.",
    "nodes.NAME.http_listen": "Where it serves HTTP.",
    "nodes.NAME.http_advertise": "Where clients find that; empty: `http_listen`. Required if it is a wildcard.",
    "nodes.NAME.native_listen": "Where it serves native clients (docs/native.md); empty: nowhere.",
    "nodes.NAME.native_advertise": "Where clients find that; empty: `native_listen`. Required if it is a wildcard.",
    "nodes.NAME.peer_listen": "Where it awaits the other nodes.",
    "nodes.NAME.peer_advertise": "Where the other nodes find that; empty: `peer_listen`. Required if it is a wildcard.",
    "nodes.NAME.data": "Its data directory, relative to the settings file; empty: `data/NAME` beside that file.",
    "groups.NAME.members": "The initial members, in order; absent: all nodes in the order of the file. Read at the "
    "first formation only: from then on the group's own log holds its members.",
    "groups.NAME.protocol": "`remote-write` or `active`: what the group begins with.",
    "groups.NAME.ack": "When a write that does not say so itself is acknowledged: `all`, `majority` or `one`.",
    "groups.NAME.checkpoint_slots": "A checkpoint of this group is due after so many slots; absent: as the cluster,",
    "groups.NAME.checkpoint_bytes": "or after so many bytes of values.",
    "groups.NAME.value_bytes_max": "Largest value in this group; at most the cluster's.",
    "node.log_level": "`debug`, `info`, `warning` or `error`.",
    "node.log_format": "`console` for people, `json` for machines.",
    "node.log_file": "Also write events to `replicad.log` in the data directory.",
    "node.log_file_bytes": "Size at which that file is rotated.",
    "node.log_files": "Older ones that are kept.",
    "node.scheduling": "`batch`: a node that wakes up lets what runs on its core go on for a moment; nodes that share "
    "cores are faster so (docs/performance.md). `normal`: it may interrupt; for cores that other programs keep busy.",
    "node.request_timeout_ms": "Deadline of a request.",
    "node.http_connections_max": "Open HTTP connections; the next one is answered 503 and closed.",
    "node.native_connections_max": "Open native connections; the next one is refused and closed.",
    "node.requests_max": "Writes that may wait at this node; the next one is answered 429.",
    "node.segment_bytes": "Size of one segment of the message log; it must hold two batches.",
    "node.reserve_bytes": "Room in the message log that stays free for promises when the disk is full; at most half a "
    "segment.",
    "node.store_map_bytes": "Largest size of the store's file. It costs address space, not disk.",
    "node.send_queue_bytes": "What may wait for one slow peer in small messages; more is dropped, sent again later.",
    "node.bulk_send_queue_bytes": "The same for bulk: batches, pages and checkpoints.",
}
