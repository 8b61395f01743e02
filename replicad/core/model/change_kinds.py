"""What may be asked of a group, one step at a time: its members, its protocol, where its coordinator is."""

ADD = "add"
PROMOTE = "promote"
DEMOTE = "demote"
REMOVE = "remove"
PROTOCOL = "protocol"
MOVE = "move"
