"""What scores subnets in a vision run: an additive indicator, or one-shot accuracy, behind one evaluator."""

from __future__ import annotations

from subshot.launch.config import VisionConfig
from subshot.launch.domain import Scorer
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import shared_evaluator, together_evaluator
from subshot.launch.vision.build import Images, eval_loader, first_images
from subshot.search.evaluator import AdditiveEvaluator, Evaluator
from subshot.search.main_effects import (
    main_effects,
    negated,
    num_settled,
    num_unknowns,
    path_loss_and_activations,
    reliability,
)
from subshot.supernet.chain import ChainSpace
from subshot.supernet.indicators import NEEDS_BRANCH, indicator_score, read_indicators
from subshot.supernet.network import ChainSupernet
from subshot.train.dist import World
from subshot.train.evaluate import OneShot
from subshot.train.run_dir import RunDir, read_jsonl
from subshot.train.task import image_task

RELIABLE = 0.5
"""Below this reliability a run is told that its path losses are mostly noise."""
MAX_BYTES_HELD = 2**31
"""More images than this are decoded anew for every candidate instead of being kept in memory."""
PATH_LOSS = ("path_loss", "path_loss_activations")


def require_scorable(config: VisionConfig, space: ChainSpace, steps: int) -> None:
    """Raises ValueError before the warm-up where the score could not be given after it."""
    score = config.score
    unknowns, settled = num_unknowns(space), num_settled(steps)
    if score.kind in PATH_LOSS and settled < unknowns:
        raise ValueError(
            f"the score {score.kind} has to tell {unknowns} effects apart by the losses of {settled} settled steps "
            f"(of {steps}); raise --warmup.recipe.epochs, lower --images.batch-size, or choose another --score.kind"
        )
    if score.kind == "indicator" and score.rule in NEEDS_BRANCH and config.supernet.branch == "none":
        raise ValueError(f"the rule {score.rule} needs layer indicators: add --supernet.branch projected (or identity)")


def make_scorer(
    config: VisionConfig, supernet: ChainSupernet, images: Images, world: World, run: RunDir, log: RunLog
) -> Scorer:
    score = config.score
    additive, caution = None, None
    if score.kind in PATH_LOSS:
        steps = read_jsonl(run.paths_jsonl)
        paths, losses = [step["path"] for step in steps], [step["loss"] for step in steps]
        effects, reliable = main_effects(supernet.space, paths, losses), reliability(supernet.space, paths, losses)
        name = f"the expected warm-up loss of its path, negated (reliability {reliable:.2f} of 1)"
        additive = negated(effects)
        if reliable < RELIABLE:
            caution = (
                f"the path losses are mostly noise (reliability {reliable:.2f} of 1): two halves of the warm-up "
                "disagree on which choices are good, so this score says little; raise --warmup.recipe.epochs"
            )
        if score.kind == "path_loss_activations":
            name += ", weighted by that reliability, plus its activations, both standardised"
            activations = supernet.space.costs["activation_elements"]
            additive = path_loss_and_activations(effects, reliable, activations)
    if score.kind == "indicator":
        name = f"{score.rule} of {score.statistic} gamma"
        additive = indicator_score(read_indicators(supernet, score.statistic), score.rule)
    if additive is not None:
        return Scorer(name, AdditiveEvaluator(additive), additive, caution)
    evaluator, count = one_shot_evaluator(config, supernet, images, world, run, log)
    return Scorer(f"one-shot accuracy on {count} held-out training images", evaluator, None)


def one_shot_evaluator(
    config: VisionConfig, supernet: ChainSupernet, images: Images, world: World, run: RunDir, log: RunLog
) -> tuple[Evaluator, int]:
    """(What gives a subnet's accuracy with inherited weights, the number of images that it is over).

    One subnet a process by default. With `score.share` images all processes evaluate one subnet together: each
    recalibrates it on the same images and counts on its share of the validation batches, so the counts, and the
    history, are the same.
    """
    score, size = config.score, config.space.input_size
    together = score.share == "images"
    calibration = first_images(images.train, score.calibration_images, config.seed)
    validation = first_images(images.search, score.validation_images, config.seed)
    rank, ranks = (world.rank, world.size) if together else (0, 1)
    loaders = [
        eval_loader(config.images, calibration, size, world, rank=0, ranks=1),
        eval_loader(config.images, validation, size, world, rank=rank, ranks=ranks),
    ]
    bytes_held = (len(calibration) + len(validation) // ranks) * 3 * 4 * size**2
    held = [list(loader) for loader in loaders] if bytes_held <= MAX_BYTES_HELD else loaders
    alone = World(0, 1, world.device, world.marks)
    one_shot = OneShot(supernet, held[0], held[1], image_task(), world if together else alone)
    cost = supernet.space.costs["macs"]
    if together:
        return together_evaluator(one_shot, world, run, log), len(validation)
    return shared_evaluator(one_shot, cost, world, run, log), len(validation)
