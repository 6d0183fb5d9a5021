"""An adapter of imagegate for Studio."""
