"""On a busy machine a single example of a property test may take long: only their number bounds the time."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
