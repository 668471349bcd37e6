"""A birthday service: it stores a date of birth and says how long until the birthday."""

__version__ = "1.0.0"
