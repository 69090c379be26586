"""One head's results as frames, charts, sentences and HTML."""
