"""The replicated log of one group, composed by one replica."""
