"""The tiny checkpoints of `support.checkpoints`, by the name under which scripts from outside these tests import them."""

from support.checkpoints import *  # noqa: F403
