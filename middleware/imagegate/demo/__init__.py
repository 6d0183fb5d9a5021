"""Everything `imagegate demo` needs: local stand-ins for the providers and the pictures they make."""
