"""What if: who may reach whom, from manifests alone, with the engine that feeds the kernel.

``sources`` reads files, ``party`` says who takes part, ``world`` compiles what they are under, ``ask``
answers for each side by itself and for both, ``matrix`` asks everything, ``suite`` what a test names.
"""
