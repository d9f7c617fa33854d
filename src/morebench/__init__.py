"""morebench: a reproducible benchmark of MoRE against its competitors."""

__version__ = "0.1.0"
