"""Prompts to click, for the kinds of models that come with the project."""

PROMPTS = {
    "causal": (
        "The return statement may only occur inside a function",
        "Return the number of items in the",
        "Raises a ValueError if the",
        "The default value is",
    ),
    "masked": (
        "The return statement may only occur ___ a function definition.",
        "Return the number of ___ in the list.",
        "If the file does not ___, an error is raised.",
        "The default value is ___.",
    ),
}
