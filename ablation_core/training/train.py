"""Train a bundled model: `python -m ablation_core.training.train opt-mini`.

The run can be interrupted at any time; the same command resumes from the last checkpoint in `--work` and ends with the
same weights. The learning rate stays level and falls to zero over the last quarter of the steps, so that a run may
also be resumed with another `--steps`. Hidden matrices are trained by Muon, everything else by AdamW.
"""

import argparse
import json
import pydoc_data.topics
import time
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ablation_core.bundled import FOLDER, NAMES
from ablation_core.training import recipes

WARM_UP_STEPS, DECAY_SHARE = 100, 0.25
CHECKPOINT_EVERY = 200


def build_recipe(name: str, work: Path) -> recipes.Recipe:
    if name == "vit-mini":
        from ablation_core.bundled.fashion_mnist import CLASSES, full_set

        return recipes.VitMini(*full_set("train"), CLASSES)
    held_out = "\n".join(pydoc_data.topics.topics.values())
    return recipes.OptMini(work, held_out) if name == "opt-mini" else recipes.RobertaMini(work, held_out)


def build_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices; AdamW for embeddings, heads, norms and biases."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and id(parameter) not in embeddings and "head" not in name
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate(step: int, steps: int) -> float:
    """The learning rate's factor: warm-up, level, then linearly to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / (DECAY_SHARE * steps))


def train(recipe: recipes.Recipe, steps: int, seed: int, checkpoint: Path) -> float:
    """Run (or resume) the training; returns the seconds spent in all sessions together."""
    optimizers = build_optimizers(recipe.model)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["seed"] != seed:
            raise SystemExit(f"{checkpoint} was begun with --seed {state['seed']}; use that, or remove the file.")
        recipe.model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]

    recipe.model.train()
    started = time.monotonic()
    with tqdm(total=steps, initial=step, unit="step", mininterval=5) as bar:
        average = None
        while step < steps:
            groups = (group for optimizer in optimizers for group in optimizer.param_groups)
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = peak * rate(step, steps)
            loss = recipe.loss(step, seed)
            loss.backward()
            nn.utils.clip_grad_norm_(recipe.model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            bar.set_postfix(loss=f"{average:.3f}", refresh=False)
            bar.update()
            if step % CHECKPOINT_EVERY == 0 or step == steps:
                state = {
                    "model": recipe.model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step,
                    "spent": spent + time.monotonic() - started,
                    "seed": seed,
                }
                partial = checkpoint.with_suffix(".partial")
                torch.save(state, partial)
                partial.replace(checkpoint)
    return spent + time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ablation_core.training.train", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--steps", type=int, help="training steps in all (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="processor threads (default: all)")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for tokens and checkpoints")
    parser.add_argument("--output", type=Path, default=FOLDER, help="the model is written to a folder of its name here")
    arguments = parser.parse_args()

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    recipe = build_recipe(arguments.name, arguments.work)
    steps = arguments.steps or recipe.steps
    seconds = train(recipe, steps, arguments.seed, arguments.work / f"{arguments.name}.pt")
    recipe.model.eval()
    folder = arguments.output / arguments.name
    recipe.save(folder)
    run = {"steps": steps, "seed": arguments.seed, "minutes": round(seconds / 60, 1), "torch": torch.__version__}
    (folder / "training.json").write_text(json.dumps(run, indent=2) + "\n")
    print(f"{folder}: {steps} steps in {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
