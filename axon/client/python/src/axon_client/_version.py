"""The version, which is the daemon's as well."""

__version__ = "0.1.0"
