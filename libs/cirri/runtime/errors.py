"""What can be wrong about a service itself.

::

    CirriError
    ├── ContractViolation     the code uses a bucket or subject that its SERVICE does not declare
    └── SettingsInvalid       the environment holds values that make no sense
"""

from collections.abc import Sequence

from cirri.errors import CirriError


class ContractViolation(CirriError):
    """*service* tried to *act* on *what* without declaring it."""

    hint = "Declare it in the service's SERVICE, from which permissions and tables are derived"

    def __init__(self, service: str, act: str, what: str) -> None:
        self.service, self.act, self.what = service, act, what
        super().__init__(f"the contract of {service} does not let it {act} {what}")


class SettingsInvalid(CirriError):
    """The environment is wrong in *faults*, one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("settings: " + "; ".join(faults))
