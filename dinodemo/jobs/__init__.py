"""Background runs as processes of their own."""
