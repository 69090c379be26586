"""Parts of pages that show heads: their effects, their scores, and what is computed once for all pages."""
