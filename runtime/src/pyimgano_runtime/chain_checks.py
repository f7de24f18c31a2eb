"""Whether the models of a category's `graph` fit together.

The first takes the picture, the last gives the score, and every tensor of kind
"features" that one takes is given, under that name and shape, by one before it.
"""

from __future__ import annotations

from .infer_config import InferConfig, ModelSpec, TensorSpec

_ADVICE = 'export again with "pyimgano bundle export"'


def kind_problems(model: ModelSpec, place: str) -> list[str]:
    """What does not fit in the kinds of one model's tensors."""
    problems = []
    kinds = [i.kind for i in model.inputs]
    if kinds != ["image"] and not _only_features(kinds):
        problems.append(
            f"{place}.inputs: found kinds {kinds}, expected one image, or features only"
        )
    kinds = [o.kind for o in model.outputs]
    if kinds not in (["score"], ["score", "anomaly_map"]) and not _only_features(kinds):
        problems.append(
            f"{place}.outputs: found kinds {kinds}, expected score and at most one "
            "anomaly_map, or features only"
        )
    return problems


def chain_contradictions(config: InferConfig) -> list[str]:
    """What does not fit in the graphs of the categories; well-kinded models only."""
    problems = []
    for name, category in config.categories.items():
        place, graph = f"categories.{name}.graph", category.graph
        unknown = [model for model in graph if model not in config.models]
        if unknown or not graph:
            problems.append(
                f"{place}: found {list(graph)}, expected one of the models "
                f"{sorted(config.models)}"
            )
        elif len(set(graph)) < len(graph):
            problems.append(
                f"{place}: found {list(graph)}, expected each model once; {_ADVICE}"
            )
        else:
            problems += _links(config, graph, place)
    return problems


def _links(config: InferConfig, graph: tuple[str, ...], place: str) -> list[str]:
    problems = []
    given: dict[str, TensorSpec] = {}
    for step, name in enumerate(graph):
        model = config.models[name]
        at = f'{place}[{step}]: "{name}"'
        first, last = step == 0, step == len(graph) - 1
        if first != any(i.kind == "image" for i in model.inputs):
            wants = "the image" if first else "features, and only the first the image"
            problems.append(f"{at}: expected a model that takes {wants}; {_ADVICE}")
        if last != (model.output("score") is not None):
            wants = "the score" if last else "features, and only the last the score"
            problems.append(f"{at}: expected a model that gives {wants}; {_ADVICE}")
        for tensor in model.inputs:
            if tensor.kind == "features" and not first:
                problems += _source_problems(tensor, given, at)
        for tensor in model.outputs:
            if tensor.kind == "features" and tensor.name in given:
                problems.append(
                    f"{at}: gives {tensor.name}, which a model before it gives too; "
                    f"{_ADVICE}"
                )
            given[tensor.name] = tensor
    return problems


def _source_problems(
    tensor: TensorSpec, given: dict[str, TensorSpec], at: str
) -> list[str]:
    source = given.get(tensor.name)
    if source is None or source.kind != "features":
        return [
            f"{at}: takes {tensor.name}, expected a model before it that gives "
            f"features of that name, found {sorted(given)}; {_ADVICE}"
        ]
    if source.shape != tensor.shape:
        return [
            f"{at}: takes {tensor.name} of shape {list(tensor.shape)}, a model before "
            f"it gives {list(source.shape)}; {_ADVICE}"
        ]
    return []


def _only_features(kinds: list[str]) -> bool:
    return bool(kinds) and set(kinds) == {"features"}
