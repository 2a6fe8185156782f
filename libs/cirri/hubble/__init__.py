"""The observer API of flows: its messages, its filters, and how rows become them."""

import os

# What gRPC's core writes for itself is no line of a service's log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
