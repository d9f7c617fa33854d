"""One file a method: a thin adapter onto a package or onto morebench.models."""
