"""Everything `imagegate demo` needs: local stand-ins for the providers and the pictures they make.

A program; tests and benchmarks use its servers, too.
"""
