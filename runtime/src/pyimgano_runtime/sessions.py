"""Opens the models of a bundle: each file once, however many categories use it.

    bundle = open_bundle("bundle")
    engines = {name: category_engine(bundle, name) for name in bundle.config.categories}

A session lives as long as an engine that uses it.
"""

from __future__ import annotations

from .bundle import Bundle
from .engine import ChainEngine, OnnxSession


def category_engine(
    bundle: Bundle, category: str, *, threads: int | None = None
) -> ChainEngine:
    """Give the engine of a category; its models are opened, others are left alone.

    Args:
        threads: onnxruntime threads; default: the cores this process may use.

    Raises:
        BundleError: a model is missing, was changed or is refused.
    """
    names = bundle.config.categories[category].graph
    return ChainEngine([_session(bundle, name, threads) for name in names])


def _session(bundle: Bundle, model: str, threads: int | None) -> OnnxSession:
    opened: OnnxSession | None = bundle.sessions.get((model, threads))
    if opened is None:
        spec = bundle.config.models[model]
        where = str(bundle.root / spec.file)
        opened = OnnxSession(bundle.read(spec.file), spec, where, threads=threads)
        bundle.sessions[model, threads] = opened
    return opened
