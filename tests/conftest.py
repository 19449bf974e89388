"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# no wall-clock asserts: on a busy machine an example may take as long as it likes (pytest's own timeout bounds a hang)
settings.register_profile("hitless", deadline=None)
settings.load_profile("hitless")
