"""The proof that three readings of policy agree: the oracle, the engine, and the programs in the kernel."""
