"""What every service's ``main`` shares: contract, settings, logs, bus, health, leadership."""

from cirri.runtime.contract import Service

__all__ = ["Service"]
