"""The tasks of `evaluate_depth.py`, `evaluate_make3d.py` and `export_gt_depth.py`."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import metrics
from datasets.data_options import DataOptions
from datasets.splits import list_of
from datasets.text import read_lines
from evaluation.depth import (
    FilePredictions,
    NetworkPredictions,
    Predicted,
    Predictions,
    at_truth,
    evaluate_depth,
    saved_as_array,
    saved_for_benchmark,
    with_progress,
)
from evaluation.examples import (
    EVAL_SPLITS,
    VALIDATION,
    EvalSplit,
    Examples,
    Make3dExamples,
    ValidationExamples,
    open_eval_split,
)
from evaluation.inference import DepthNetwork
from evaluation.panels import Picture, sheet
from evaluation.results import DepthResult
from evaluation.truth_file import write_truth
from evaluation.weights import Weights, as_asked, open_depth
from training.validation import PROTOCOL_OF
from utils import UserError, written_whole

_ERROR_TOP = 0.5  # relative, of the last colour of a picture of Make3D: one for all of them


@dataclass(frozen=True)
class Task:
    """What is to be evaluated: images with truth, predictions, rules, and words for all of it."""

    examples: Examples
    predictions: Predictions
    protocol: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        result: the errors, None where nothing was compared
        written: files and folders of predictions
        seconds: that all of it took
        images: that it took them for
    """

    result: DepthResult | None
    written: tuple[Path, ...]
    seconds: float
    images: int


def depth_task(args: Namespace) -> Task:
    """Open what the options of `evaluate_depth.py` name.

    Raises:
        UserError, OSError: a file of it is missing, is broken or is of another kind
    """
    if args.ext_disp_to_eval is not None:
        return _task_of_file(args)
    network = _network(args)
    examples, chosen = _examples(args, network)
    facts = _facts_of_network(args, network) | {"truth": _truth_of(args, chosen)}
    predictions = NetworkPredictions(network, args.batch_size, args.num_workers)
    return Task(examples, predictions, chosen.protocol, facts)


def make3d_task(args: Namespace) -> Task:
    """Open what the options of `evaluate_make3d.py` name; errors as in `depth_task`."""
    network = _network(args)
    examples = Make3dExamples(args.data_path, network.size)
    facts = _facts_of_network(args, network) | {"truth": "laser depths of Make3D, rows 17 to 37"}
    predictions = NetworkPredictions(network, args.batch_size, args.num_workers)
    return Task(examples, predictions, "make3d", facts)


def run_depth(args: Namespace, task: Task) -> Outcome:
    """Predict, write what is to be kept, and compare what is to be compared."""
    began = time.monotonic()
    examples, names = task.examples, task.examples.names
    folder = args.eval_out_dir or args.load_weights_folder
    places = list(range(len(names)))
    if not writes_predictions(args):
        places = [i for i in places if examples.has_truth(i)]
    written = []
    stream: Iterator[Predicted] = task.predictions.read(examples, args.keeps_errors, places)
    if args.save_pred_disps:
        written.append(folder / f"disps_{args.eval_split}_split.npy")
        folder.mkdir(parents=True, exist_ok=True)
        stream = saved_as_array(written[-1], stream, len(places))
    if args.eval_split == "benchmark":
        written.append(folder / "benchmark_predictions")
        stream = saved_for_benchmark(written[-1], stream)
    stream = with_progress(stream, len(places))
    result = None
    if args.keeps_errors:
        unread = sorted(set(range(len(names))) - set(places))
        without = [names[i] for i in unread]
        result = evaluate_depth(
            examples, stream, task.protocol, task.facts, scaled_row(args), without
        )
    for _ in stream:  # what nobody compares is still to be written
        pass
    return Outcome(result, tuple(written), time.monotonic() - began, len(places))


def writes_predictions(args: Namespace) -> bool:
    """Whether predictions of all images are kept, those without truth too."""
    return args.save_pred_disps or args.eval_split == "benchmark"


def run_make3d(args: Namespace, task: Task) -> Outcome:
    """Predict, write pictures if they are asked for, and compare."""
    began = time.monotonic()
    count = len(task.examples.names)
    stream = task.predictions.read(task.examples, truths=True)
    written = []
    if args.save_make3d:
        written.append((args.eval_out_dir or args.load_weights_folder) / "make3d")
        stream = _saved_as_pictures(written[-1], stream, task)
    stream = with_progress(stream, count)
    result = evaluate_depth(task.examples, stream, task.protocol, task.facts, scaled_row(args))
    return Outcome(result, tuple(written), time.monotonic() - began, count)


def scaled_row(args: Namespace) -> bool:
    """Whether the errors after median scaling are those that were asked for."""
    return args.eval_mono and not args.disable_median_scaling


def pictures_of(task: Task, result: DepthResult, chosen: list[tuple[str, int]]) -> list[Picture]:
    """Predict once more for some images of a result, and return all there is to see of them.

    Args:
        task: that was evaluated
        result: of it
        chosen: titles and places in the result, as `choose_pictures` gives them
    """
    place = {name: i for i, name in enumerate(task.examples.names)}
    places = [place[result.names[i]] for _, i in chosen]
    read = task.predictions.read(task.examples, truths=True, places=places)
    pictures = []
    for (title, i), predicted in zip(chosen, read, strict=True):
        errors = dict(zip(metrics.DEPTH_METRICS, result.errors[i].tolist(), strict=True))
        ratio = float(result.ratio[i])
        picture = _picture(title, task, predicted, ratio if result.median_scaled else 1.0)
        pictures.append(replace(picture, errors=errors | {"ratio": ratio}))
    return pictures


def export_truth(args: Namespace) -> tuple[int, list[str]]:
    """Write the true depths of a list to one file; return how many, and which images have none.

    Raises:
        UserError, OSError: the tree lacks something of it
    """
    options = DataOptions(args.data_path, png=args.png)
    examples = open_eval_split(args.split, options)
    places = [i for i in range(len(examples.names)) if examples.has_truth(i)]
    depths = map(examples.truth, tqdm(places, unit="image", disable=None))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_truth(args.output, [examples.names[i] for i in places], depths, examples.kind)
    lacking = sorted(set(range(len(examples.names))) - set(places))
    return len(places), [examples.names[i] for i in lacking]


def _network(args: Namespace) -> DepthNetwork:
    weights = open_depth(**as_asked(args))
    return DepthNetwork(weights, args.amp, args.post_process, args.pred_depth_scale_factor)


def _task_of_file(args: Namespace) -> Task:
    """Return the task of predictions that a file has."""
    chosen = EVAL_SPLITS[args.eval_split]
    options = DataOptions(args.data_path, png=args.png)
    examples = open_eval_split(args.eval_split, options, args.gt_depths)
    rows, count = None, len(examples.names)
    if args.eval_eigen_to_benchmark:
        rows, count = _rows_of_eigen(examples.names)
    predictions = FilePredictions(
        args.ext_disp_to_eval, count, rows, factor=args.pred_depth_scale_factor
    )
    facts = {"predictions": str(args.ext_disp_to_eval), "truth": _truth_of(args, chosen)}
    if args.pred_depth_scale_factor != 1:
        facts["depths multiplied by"] = f"{args.pred_depth_scale_factor:g}"
    return Task(examples, predictions, chosen.protocol, facts)


def _rows_of_eigen(names: list[str]) -> tuple[list[int], int]:
    """Return where these images are among those of eigen, and how many those are."""
    place = {line: i for i, line in enumerate(read_lines(list_of("eigen", "test")))}
    return [place[name] for name in names], len(place)


def _examples(args: Namespace, network: DepthNetwork) -> tuple[Examples, EvalSplit]:
    options = DataOptions(
        args.data_path, png=args.png, width=network.size[0], height=network.size[1]
    )
    if args.eval_split != VALIDATION:
        chosen = EVAL_SPLITS[args.eval_split]
        return open_eval_split(args.eval_split, options, args.gt_depths), chosen
    trained = network.weights.options
    if trained.split is None:
        raise UserError(
            f"{args.load_weights_folder}: no opt.json there or beside it says what the training "
            "validated on: --eval_split val needs it"
        )
    protocol = PROTOCOL_OF.get(trained.dataset)
    if protocol is None:
        raise UserError(f"--eval_split val: a dataset {trained.dataset!r} is not known")
    return _validation(args, network.weights), EvalSplit(
        trained.dataset, trained.split, protocol, "as in the training's validation"
    )


def _validation(args: Namespace, weights: Weights) -> ValidationExamples:
    """Open the validation list of a training with the samples that it had there."""
    trained = weights.options
    return ValidationExamples(
        DataOptions(
            args.data_path,
            split=trained.split,
            dataset=trained.dataset,
            png=trained.png,
            height=trained.height,
            width=trained.width,
            frame_ids=tuple(trained.frame_ids_of_training),
            use_stereo=trained.use_stereo,
            use_imu=trained.use_imu,
            intrinsics=trained.intrinsics,
            check_attitude=not trained.avoid_quat_check,
        )
    )


def _facts_of_network(args: Namespace, network: DepthNetwork) -> dict[str, str]:
    weights, (width, height) = network.weights, network.size
    trained = weights.options
    facts = {
        "weights": str(weights.folder),
        "network": f"ResNet-{trained.num_layers}, {width}x{height}",
        "metres": f"network's unit times {trained.trans_scale_factor:g}",
        "computed in": f"{'float32' if args.amp == 'off' else args.amp} on {weights.device.type}",
    }
    if args.pred_depth_scale_factor != 1:
        facts["metres"] += f" times {args.pred_depth_scale_factor:g}"
    if args.post_process:
        facts["post-processing"] = "blended with the mirrored image's"
    return facts


def _truth_of(args: Namespace, chosen: EvalSplit) -> str:
    return chosen.truth if args.gt_depths is None else f"{args.gt_depths}: {chosen.truth}"


def _saved_as_pictures(
    folder: Path, stream: Iterable[Predicted], task: Task
) -> Iterator[Predicted]:
    """Pass predictions on, and write what there is to see of each to FOLDER/NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for predicted in stream:
        picture = _picture("", task, predicted)
        done, data = cv2.imencode(".png", sheet(picture, _ERROR_TOP)[..., ::-1])
        assert done
        with written_whole(folder / f"{picture.name}.png") as file:
            file.write(data.tobytes())
        yield predicted


def _picture(title: str, task: Task, predicted: Predicted, factor: float = 1.0) -> Picture:
    """Return what there is to see of an image, its prediction multiplied by a factor."""
    (place, _, truth_m), inverse = predicted
    rules = metrics.PROTOCOLS[task.protocol]
    truth = torch.from_numpy(truth_m)[None, None]  # (1, 1, h, w)
    depth_m = factor * at_truth(inverse, truth.shape[-2:], rules)
    return Picture(
        title=title,
        name=task.examples.names[place],
        image=task.examples.recorded(place),
        predicted_m=depth_m[0, 0].clamp(rules.min_depth_m, rules.max_depth_m).numpy(),
        truth_m=truth_m,
        valid=metrics.valid_pixels(truth, rules)[0, 0].numpy(),
        errors={},
    )
