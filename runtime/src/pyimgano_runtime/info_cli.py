"""`pyimgano-runtime info`: what a bundle says of itself."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .cli_options import SIGNATURE_TEXT, add_max_memory, add_trust, opened

if TYPE_CHECKING:
    from .bundle import Bundle


def add_arguments(info: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    info.add_argument("bundle", metavar="BUNDLE", help="the bundle folder")
    info.add_argument("--json", action="store_true", help="print JSON")
    add_max_memory(info)
    add_trust(info)


def run(options: argparse.Namespace) -> int:
    """Print it, in words or as JSON."""
    from .row_output import json_text

    bundle = opened(options)
    if options.json:
        signature = bundle.signature.name if bundle.signature else None
        document = bundle.config.to_dict() | {"signature": signature}
        print(json_text(document, sys.stdout, indent=2))
        return 0
    print_info(bundle)
    return 0


def print_info(bundle: Bundle) -> None:
    """Print what a bundle says of itself."""
    from .int8_words import int8_sentence
    from .region_words import region_sentence
    from .threshold_words import describe_threshold

    config = bundle.config
    print(f"bundle     {config.bundle.name} {config.bundle.version}")
    print(f"created    {config.bundle.created}")
    print(f"sha256     {bundle.sha256}")
    if bundle.signature:
        print(f"signature  {bundle.signature.name} {SIGNATURE_TEXT}")
    producer = ", ".join(f"{k} {v}" for k, v in config.bundle.producer.items())
    print(f"made with  {producer}")
    print(f"size       {sum(e.size for e in config.files) / 1e6:.1f} MB")
    for name, category in config.categories.items():
        image = category.thresholds.provenance["image"]
        training = (config.training.get("categories") or {}).get(name, {})
        parity = config.parity.categories.get(name)
        print(f"category   {name}")
        if len(category.graph) > 1:
            files = [config.models[model].file for model in category.graph]
            print(f"  models     {', then '.join(files)}")
        print(f"  detector   {training.get('detector', 'unknown')}")
        print(
            f"  threshold  {category.thresholds.image:.6g}: {describe_threshold(image)}"
        )
        regions = region_sentence(category)
        if regions:
            print(f"  regions    {regions}")
        for warning in training.get("warnings") or []:
            print(f"  warning    {warning}")
        if parity is not None:
            print(
                f"  parity     {parity.label_flips} label flips on {parity.n_images} "
                f"{parity.images} images, score rel diff "
                f"{parity.max_rel_score_diff:.1e}"
            )
        in_int8 = int8_sentence(training, parity)
        if in_int8:
            print(f"  int8       {in_int8}")
