"""`scoregate inspect`: show what a bundle holds, and verify it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from server.errors import BundleError


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Hash the files, build the engine and compare it with onnxruntime.",
)
def inspect(bundle: Path, as_json: bool, verify: bool) -> None:
    """Show a bundle: header, files, features, decisions and the export's report.

    Ends with exit code 2 if the bundle would not be served.
    """
    import hashlib

    import msgspec

    from server.bundle.manifest import MANIFEST, SCHEMA, encode
    from server.bundle.reader import file_states, read_manifest
    from server.bundle.render import format_bytes, print_bundle
    from server.bundle.schema import decode_schema
    from server.bundle.tables import stdout_console

    manifest, raw = read_manifest(bundle)
    states = file_states(bundle, manifest) if verify else {}
    trouble = next((f"{bundle / n}: {s}" for n, s in states.items() if s != "ok"), None)
    schema = None
    try:
        schema = decode_schema((bundle / SCHEMA).read_bytes(), str(bundle / SCHEMA))
    except (OSError, BundleError) as error:
        trouble = trouble or str(error)
    engine = [("engine", manifest.quantization.engine)]
    if verify and trouble is None:
        try:
            engine = _proven(bundle)
        except BundleError as error:
            trouble = str(error)
    sha256 = hashlib.sha256(raw).hexdigest()
    if as_json:
        answer = {
            "path": str(bundle),
            "sha256": sha256,
            "verified": verify and trouble is None,
            "error": trouble,
            "files": states,
            "manifest": manifest,
            "schema": schema,
        }
        click.echo(encode(msgspec.to_builtins(answer)), nl=False)
    else:
        outputs, training = manifest.outputs, manifest.training
        header = [
            ("path", str(bundle)),
            ("format", manifest.format),
            ("created", manifest.created),
            ("SHA-256 of " + MANIFEST, sha256),
            ("size", format_bytes(sum(entry.bytes for entry in manifest.files.values()))),
            ("link", f"{outputs.link}, log-odds shift {outputs.prior_log_odds_shift:g}"),
            ("classes", f"{outputs.classes[0]} / {outputs.classes[1]} (positive)"),
            ("routing entity", manifest.routing_entity or "none"),
            ("trained on", f"{training.n_rows:,} rows, {training.n_positive:,} positive"),
            ("training data", training.fingerprint),
            ("drift reference", manifest.reference or "the export's validation rows"),
            ("made with", ", ".join(f"{k} {v}" for k, v in manifest.library_versions.items())),
            *engine,
        ]
        print_bundle(stdout_console(), manifest, schema, states, header)
    if trouble is not None:
        if as_json:
            sys.exit(2)
        raise BundleError(trouble)


def _proven(path: Path) -> list[tuple[str, str]]:
    """Load the bundle as the server does; return the header's lines about the engine."""
    from server.bundle import load_model, read_bundle
    from server.bundle.render import format_bytes

    loaded = load_model(read_bundle(path))
    parity = f"{loaded.parity_rows:,} rows equal onnxruntime's, bit by bit"
    if loaded.engine == "onnx":
        parity = "golden rows come out as at export"
    return [
        ("engine", f"{loaded.engine}, {format_bytes(loaded.resident_bytes)} resident"),
        ("parity", parity),
        ("layout fingerprint", f"{loaded.schema.fingerprint:#018x}"),
    ]
