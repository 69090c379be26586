"""Long runs on the pages: their controls, how long they will take, and what a page gives along."""
