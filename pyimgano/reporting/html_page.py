"""Renders the templates in `resources`: the pages share their style in `style/`."""

from __future__ import annotations

from typing import Any


def render(template: str, facts: dict[str, Any]) -> str:
    """Give a whole page; all text in `facts` is escaped.

    Args:
        template: file name in `resources`.
        facts: every name that the template uses.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyimgano", "resources"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(facts)
