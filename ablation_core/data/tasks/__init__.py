"""Tasks: prompts with a right and a wrong answer, drawn from a seed or read from a file."""
