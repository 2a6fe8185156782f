"""What every service's ``main`` shares: contract, settings, logs, bus, health, leadership."""

from cirri.runtime.contract import Service
from cirri.runtime.errors import ContractViolation, SettingsInvalid
from cirri.runtime.main import run
from cirri.runtime.runtime import Runtime, request_subject
from cirri.runtime.settings import Settings

__all__ = [
    "ContractViolation",
    "Runtime",
    "Service",
    "Settings",
    "SettingsInvalid",
    "request_subject",
    "run",
]
