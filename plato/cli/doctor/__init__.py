"""`plato doctor`."""

from plato.cli.doctor.command import doctor

__all__ = ["doctor"]
