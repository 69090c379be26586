"""Parts of the first page: one head at a glance, and cards that open on what it does."""
