"""What the server's PL/Python and the agents share: the bytes of a changeset and the way they are signed."""

__version__ = "0.1.0"
