"""What scores subnets in a vision run: an additive indicator, or one-shot accuracy, behind one evaluator."""

from __future__ import annotations

from functools import partial

from subshot.launch.config import VisionConfig
from subshot.launch.domain import Scorer
from subshot.launch.vision import Images, eval_loader, first_images
from subshot.search.evaluator import AdditiveEvaluator, FunctionEvaluator, Sharded
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
from subshot.train.dist import World, gather_objects
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


def make_scorer(config: VisionConfig, supernet: ChainSupernet, images: Images, world: World, run: RunDir) -> Scorer:
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
    size = config.space.input_size
    calibration = first_images(images.train, score.calibration_images, config.seed)
    validation = first_images(images.search, score.validation_images, config.seed)
    loaders = [eval_loader(config.images, part, size, world, rank=0, ranks=1) for part in (calibration, validation)]
    bytes_held = (len(calibration) + len(validation)) * 3 * 4 * size**2
    held = [list(loader) for loader in loaders] if bytes_held <= MAX_BYTES_HELD else loaders
    one_shot = OneShot(supernet, held[0], held[1], image_task())
    cost = supernet.space.costs["macs"]
    sharded = Sharded(FunctionEvaluator(one_shot), world.rank, world.size, partial(gather_objects, world=world), cost)
    return Scorer(f"one-shot accuracy on {len(validation)} held-out training images", sharded, None)
