"""The engine on a graphics card, in at most eight minutes: `python -m benchmarks.gpu`.

Two parts, one JSON file (`gpu.json`):

* `conformance`: ten families, tiny and random, in float32 and bfloat16 on the card: every prediction's loss, clean and with a
  head ablated by the engine, against plain hooks and whole passes in float32 on the processor.
* `models`: OPT-1.3B, a Llama of 1.2B and ViT-L with random weights, since speed does not depend on their values: the plain
  pass, one head by five methods, all heads of three layers, statistics, the estimate, each with its peak of memory. Plain
  hooks stand beside, and nnsight and TransformerLens where they are installed, in one process, in turn.

`python -m benchmarks.gpu --device cpu --tiny` runs the same code in a minute, as a test does. The times that it prints mean
nothing.
"""
