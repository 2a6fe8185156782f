"""The observer API of flows: its messages, its filters, and how rows become them."""
