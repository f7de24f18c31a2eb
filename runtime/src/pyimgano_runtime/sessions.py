"""Opens the models of a bundle: each file once, however many categories use it.

    bundle = open_bundle("bundle")
    engines = {name: category_engine(bundle, name) for name in bundle.config.categories}

A session lives as long as an engine that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bundle import Bundle
from .engine import ChainEngine, OnnxSession
from .providers import resolve_providers


def category_engine(
    bundle: Bundle,
    category: str,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> ChainEngine:
    """Give the engine of a category; its models are opened, others are left alone.

    Args:
        threads: onnxruntime threads; default: the cores this process may use.
        providers: onnxruntime's execution providers, the preferred one first; see
            `providers.resolve_providers`. Default: the CPU.

    Raises:
        BundleError: a model is missing, was changed or is refused.
        ConfigError: a provider is not there or does not compute here.
    """
    chosen = resolve_providers(providers)
    names = bundle.config.categories[category].graph
    return ChainEngine([_session(bundle, name, threads, chosen) for name in names])


def _session(
    bundle: Bundle, model: str, threads: int | None, providers: tuple[str, ...]
) -> OnnxSession:
    opened: OnnxSession | None = bundle.sessions.get((model, threads, providers))
    if opened is None:
        spec = bundle.config.models[model]
        opened = OnnxSession(
            *(bundle.read(spec.file), spec, str(bundle.root / spec.file)),
            threads=threads,
            providers=providers,
        )
        bundle.sessions[model, threads, providers] = opened
    return opened
