"""Prompts to click, for the kinds of models that come with the project; the first of each is answered without a click."""

# The box that a person types into, in the address too.
BOXES = {"causal": "prompt", "masked": "gaps", "text-classification": "own text"}
PROMPTS = {
    "causal": (
        "Open the file for reading; close the file after",
        "The key must be a string and the value must be a",
        "Return True if x is greater than y, otherwise return",
        "The return statement may only occur inside a function",
    ),
    "masked": (
        "This method returns ___ if the object is empty.",
        "The return statement may only occur ___ a function definition.",
        "The first argument is the name of the ___ to open.",
        "Raise a ___ if the key is not found.",
    ),
    "text-classification": (
        "This is a good example of how it should be done.",
        "Nothing about this works as it should.",
        "It arrived late, but it was worth the wait.",
    ),
}
